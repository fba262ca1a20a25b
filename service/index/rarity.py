"""What a word weighs among the points of a corpus, as the engine counts it, remembered until enough of them changed."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from service.index.selection import SUBJECTS, Every, Has, Key, Selection, Some
from service.scope import TenantId

#: What share of a corpus may change before its words are counted again. The weight of a word (the logarithm of how rare
#: it is) moves by as little, unless the word itself was very rare.
_TOLERATED: Final = 0.005
#: Some 0.2 MB for a corpus.
_MOST_WORDS: Final = 2_000
#: Corpora that are remembered, of all tenants.
_MOST_CORPORA: Final = 256
_TOLD_APART: Final = tuple(sorted((Key.TENANT, *SUBJECTS)))


class Rarity:
    """The weights of one corpus's words. Of fewer than 200 points each change counts. Safe for many threads."""

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


class Corpora:
    """What words weigh in the corpora that were asked last. A corpus is a tenant's points, or of some subjects.

    Safe for many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[TenantId, Selection], Rarity] = OrderedDict()

    def of(self, tenant_id: TenantId, corpus: Selection) -> Rarity:
        """Return what is remembered of a corpus; nothing at first."""
        with self._lock:
            rarity = self._known.setdefault((tenant_id, corpus), Rarity())
            self._known.move_to_end((tenant_id, corpus))
            if len(self._known) > _MOST_CORPORA:
                self._known.popitem(last=False)
            return rarity

    def stored(self, tenant_id: TenantId, payloads: Iterable[Mapping[str, Any]]) -> None:
        """Take note of points that were stored, in the corpora that they are in."""
        counts = Counter(tuple(payload.get(key) for key in _TOLD_APART) for payload in payloads)
        points = [(dict(zip(_TOLD_APART, values, strict=True)), count) for values, count in counts.items()]
        for corpus, rarity in self._of(tenant_id):
            rarity.changed(sum(count for fields, count in points if _holds(corpus, fields)))

    def removed(self, tenant_id: TenantId, points: int) -> None:
        """Take note that points of a tenant were removed, whichever corpora they were in."""
        for _, rarity in self._of(tenant_id):
            rarity.changed(points)

    def _of(self, tenant_id: TenantId) -> list[tuple[Selection, Rarity]]:
        with self._lock:
            return [(corpus, rarity) for (owner, corpus), rarity in self._known.items() if owner == tenant_id]


def _holds(corpus: Selection, fields: Mapping[Key, Any]) -> bool:
    """Whether a corpus has a point with these fields; also when it asks for what is not among them."""
    match corpus:
        case Has(key, values):
            return key not in fields or fields[key] in values
        case Every(parts):
            return all(_holds(part, fields) for part in parts)
        case Some(parts):
            return any(_holds(part, fields) for part in parts)
        case _:
            return True
