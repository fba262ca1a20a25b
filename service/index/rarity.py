"""What a word weighs among the points of a tenant, as the engine counts it, remembered until enough of them changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

#: What share of a tenant's points may change before its words are counted again. The weight of a word (the logarithm of
#: how rare it is) moves by as little, unless the word itself was very rare.
_TOLERATED: Final = 0.005
#: Some 0.5 MB for a tenant.
_MOST_WORDS: Final = 5_000


class Rarity:
    """The weights of one tenant's words. Of fewer than 200 points each change counts. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._weights: dict[int, float] = {}
        #: How many points there were when the first of the weights was counted.
        self._points = 0
        #: How many were written or removed since, and ever.
        self._since = self._ever = 0

    def changed(self, points: int) -> None:
        """Take note that points were written or removed; to be called when the engine shows it."""
        with self._lock:
            self._since += points
            self._ever += points

    def weights(
        self,
        terms: Sequence[int],
        *,
        weigh: Callable[[Sequence[int]], Mapping[int, float]],
        count: Callable[[], int],
    ) -> dict[int, float]:
        """Return what each of these words weighs; `weigh` is asked for those not known, `count` for how many points."""
        with self._lock:
            if self._since > self._points * _TOLERATED or len(self._weights) > _MOST_WORDS:
                self._weights = {}
            known = {term: self._weights[term] for term in terms if term in self._weights}
            empty, before = not self._weights, self._ever
        missing = [term for term in terms if term not in known]
        if not missing:
            return known
        counted = weigh(missing)
        points = count() if empty else 0
        with self._lock:
            # What was counted before a change is right for the question that it was counted for, and for no other.
            if self._ever == before:
                if not self._weights:
                    self._points, self._since = points, 0
                self._weights.update(counted)
        return {**known, **counted}
