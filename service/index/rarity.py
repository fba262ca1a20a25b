"""What a word weighs among the points of a corpus, as the engine counts it, remembered until enough of them changed."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from service.index.selection import SUBJECTS, Every, Has, Key, Selection, Some, Value
from service.scope import TenantId

#: What share of a tenant's points may change before its words are counted again. The weight of a word (the logarithm of
#: how rare it is) moves by as little, unless the word itself was very rare.
TOLERATED: Final = 0.005
#: Some 0.2 MB for a corpus.
_MOST_WORDS: Final = 2_000
#: Corpora that are remembered, of all tenants and of one, and names in one. Clients choose the names: whoever asks for
#: ever others must neither fill the memory nor push out what all other tenants use.
_MOST_CORPORA: Final = 256
_MOST_OF_A_TENANT: Final = 128
_MOST_NAMES: Final = 16


class Rarity:
    """The weights of one corpus's words, until more than a share of its points changed. Safe for many threads."""

    def __init__(self, tolerated: float = 0.0) -> None:
        self._tolerated = tolerated
        self._lock = threading.Lock()
        self._weights: dict[int, float] = {}
        #: Words that no point had before the last change: without a weight a word is not asked for.
        self._absent: set[int] = set()
        #: How many points there were when the first of the weights was counted.
        self._points = 0
        #: How many were written or removed since, and ever.
        self._since = self._ever = 0

    def changed(self, points: int) -> None:
        """Take note that points were written or removed; to be called when the engine shows it."""
        with self._lock:
            self._since += points
            self._ever += points
            if points:
                self._absent.clear()

    def weights(
        self,
        terms: Sequence[int],
        *,
        weigh: Callable[[Sequence[int]], Mapping[int, float]],
        count: Callable[[], int],
    ) -> dict[int, float]:
        """Return what each of these words weighs; `weigh` is asked for those not known, `count` for how many points."""
        with self._lock:
            if self._since > self._points * self._tolerated or len(self._weights) + len(self._absent) > _MOST_WORDS:
                self._weights, self._absent = {}, set()
            known = {term: self._weights[term] for term in terms if term in self._weights}
            known |= dict.fromkeys(self._absent.intersection(terms), 0.0)
            empty, before = not (self._weights or self._absent), self._ever
        missing = [term for term in terms if term not in known]
        if not missing:
            return known
        counted = weigh(missing)
        points = count() if empty else 0
        with self._lock:
            # What was counted before a change is right for the question that it was counted for, and for no other.
            if self._ever == before:
                if not (self._weights or self._absent):
                    self._points, self._since = points, 0
                self._absent.update(term for term, weight in counted.items() if weight == 0)
                self._weights.update((term, weight) for term, weight in counted.items() if weight != 0)
        return {**known, **counted}


class Corpora:
    """What words weigh in the corpora that were asked last. A corpus is a tenant's points, or those of some subjects.

    Safe for many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[TenantId, Selection], _Known] = OrderedDict()

    def of(self, tenant_id: TenantId, corpus: Selection) -> Rarity:
        """Return what is remembered of a corpus; nothing at first, and nothing ever of one with many names."""
        place = (tenant_id, corpus)
        with self._lock:
            if place not in self._known:
                names = frozenset(_names(corpus))
                if len(names) > _MOST_NAMES:
                    return Rarity()
                self._make_room(tenant_id)
                # Of some subjects each change counts. A weight that lags behind would tell whoever may read no others
                # when it was forgotten, which others have a part in.
                self._known[place] = _Known(names, Rarity(0.0 if names else TOLERATED))
            self._known.move_to_end(place)
            return self._known[place].rarity

    def changed(self, tenant_id: TenantId, payloads: Iterable[Mapping[str, Any]]) -> None:
        """Take note of points of a tenant that were written or removed, in the corpora that they are in."""
        kinds = Counter(
            frozenset((key, payload[key]) for key in SUBJECTS if payload.get(key) is not None) for payload in payloads
        )
        with self._lock:
            known = [(corpus, one) for (owner, corpus), one in self._known.items() if owner == tenant_id]
        for corpus, (names, rarity) in known:
            # Most corpora are of others, which is told quickly: a write is waited for.
            rarity.changed(
                sum(
                    count
                    for kind, count in kinds.items()
                    if not names or (not names.isdisjoint(kind) and _holds(corpus, kind))
                )
            )

    def _make_room(self, tenant_id: TenantId) -> None:
        of_tenant = [place for place in self._known if place[0] == tenant_id]
        if len(of_tenant) >= _MOST_OF_A_TENANT:
            del self._known[of_tenant[0]]
        elif len(self._known) >= _MOST_CORPORA:
            self._known.popitem(last=False)


class _Known(NamedTuple):
    names: frozenset[tuple[Key, Value]]
    rarity: Rarity


def _names(corpus: Selection) -> Iterator[tuple[Key, Value]]:
    """Yield the subjects that a corpus names. A point of a corpus that names some is one of theirs."""
    match corpus:
        case Has(key, values) if key in SUBJECTS:
            yield from ((key, value) for value in values)
        case Every(parts) | Some(parts):
            for part in parts:
                yield from _names(part)


def _holds(corpus: Selection, kind: Collection[tuple[Key, Value]]) -> bool:
    """Whether a corpus has the tenant's points of these subjects."""
    match corpus:
        case Has(key, values) if key in SUBJECTS:
            return any((key, value) in kind for value in values)
        case Every(parts):
            return all(_holds(part, kind) for part in parts)
        case Some(parts):
            return any(_holds(part, kind) for part in parts)
        case _:
            return True
