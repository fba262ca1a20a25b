"""One tenant's part of an index: every call carries the tenant, whatever else is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from heapq import nlargest
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

from service.filters.ast import Node
from service.filters.lookup import Lookup
from service.index.filter_qdrant import compile_qdrant
from service.index.fusion import strength
from service.index.interface import Candidate, Dense, Point, SearchAnswer
from service.index.neighbours import SEEDS, surroundings
from service.index.points import created_of, identity, place_of
from service.index.selection import Every, Has, Key, Points, Selection, Some, point_ids, within
from service.index.terms import SparseTerms
from service.scope import Scope, TenantId

_T = TypeVar("_T")
#: Points in one call. The embedded engine holds the interpreter's lock until a call is done, 10 ms for as many.
CHUNK: Final = 100


@dataclass(frozen=True, slots=True)
class ByMeaning:
    """Ask for the points that are nearest to a vector by cosine."""

    vector: Sequence[float]
    where: Selection
    limit: int


@dataclass(frozen=True, slots=True)
class ByWords:
    """Ask for the points that are best by BM25. How rare a word is, is counted over `corpus`.

    With `scores_only` nothing else is read back, which spares the engine to open each payload.
    """

    terms: SparseTerms
    where: Selection
    limit: int
    corpus: Selection
    scores_only: bool = False


class Found(NamedTuple):
    """A point that was found: its id, its score, and what says which memory it is and where that stands."""

    id: UUID
    score: float
    payload: Mapping[str, Any] | None = None


class Reader(Protocol):
    """What can be asked of the points of all tenants. Selections carry the tenant; this is not checked again."""

    def ask(self, asked: Sequence[ByMeaning | ByWords | None]) -> list[dict[int, Found]]:
        """Answer several questions in one round trip, each by the number of the point's id; None finds nothing."""
        ...

    def scroll(self, where: Selection, *, limit: int, after: UUID | None = None) -> tuple[dict[UUID, int], UUID | None]:
        """Return memories with their versions in the order of their points, and the point to go on with."""
        ...

    def count(self, where: Selection) -> int:
        """Return how many points are meant."""
        ...


class Engine(Protocol):
    """What a scoped index needs of the index that it is a part of."""

    dimensions: int

    def reading(self, doing: str, tenant_id: TenantId) -> AbstractContextManager[Reader]:
        """Lend a reader of what serves now, for questions of one tenant; failures inside are `IndexUnavailable`."""
        ...

    def checked(self, vector: Dense) -> list[float]:
        """Return a vector as the engine takes it, or raise ValueError: wrong size or not finite."""
        ...

    def store(self, tenant_id: TenantId, points: Sequence[Point]) -> None:
        """Store points, each only over an older one; a bad vector raises ValueError before any is stored."""
        ...

    def remove(self, tenant_id: TenantId, ids: Collection[UUID]) -> None:
        """Remove points of a tenant by point id."""
        ...


class TenantIndex:
    """See `ScopedIndex`."""

    def __init__(self, engine: Engine, scope: Scope) -> None:
        self._engine = engine
        self._tenant = scope.tenant_id
        self._bound = scope.users is not None

    def upsert(self, points: Sequence[Point]) -> None:
        """See `ScopedWriter`. Raises ValueError, and stores nothing, for a vector of a wrong size or not finite."""
        self._engine.store(self._tenant, points)

    def delete(self, memory_ids: Collection[UUID]) -> None:
        """See `ScopedWriter`."""
        for chunk in chunks(list(memory_ids)):
            self._engine.remove(self._tenant, point_ids(self._tenant, chunk))

    def search(
        self,
        vector: Dense,
        terms: SparseTerms,
        where: Node,
        lookup: Lookup,
        *,
        limit: int,
        users: frozenset[UUID] | None = None,
        on: date | None = None,
        neighbours: bool = False,
    ) -> SearchAnswer:
        """See `ScopedIndex`. Raises ValueError for a bad vector, and when a bound scope comes without its users."""
        if self._bound and users is None:
            raise ValueError("the scope is bound to users: pass their surrogates")
        compiled = compile_qdrant(where, lookup)
        allowed = within(self._tenant, compiled.selection, users=users, on=on)
        meaning = self._engine.checked(vector)
        with self._engine.reading("search", self._tenant) as reader:
            near, worded = reader.ask([ByMeaning(meaning, allowed, limit), self._words(terms, allowed, limit)])
            exhausted = len(near) < limit
            # What one side found alone gets its exact score from the other, so that the two can be weighed.
            only_worded = [point.id for number, point in worded.items() if number not in near]
            only_near = [point.id for number, point in near.items() if number not in worded]
            around: frozenset[int] = frozenset()
            # With all of them found there is nothing more around; an inexact filter may let in what it should not.
            if neighbours and compiled.exact and not exhausted:
                around = surroundings(_strongest(near, worded))
            # Fewer than the limit were found by words: these are all, the others have no word in common.
            words = len(worded) == limit
            near_more, worded_more = reader.ask(
                [
                    self._by_meaning(meaning, *self._more(only_worded, around, allowed)),
                    # Each of these is among those by meaning, with what says which memory it is.
                    self._words(terms, *self._more(only_near, around, allowed), scores_only=True) if words else None,
                ]
            )
        near |= near_more
        worded |= worded_more
        candidates = [
            Candidate(
                *identity(point.payload),
                point.score,
                worded[number].score if number in worded else 0.0,
                place_of(point.payload),
                created_of(point.payload),
            )
            for number, point in near.items()
        ]
        return SearchAnswer(candidates, compiled.exact, exhausted)

    def existing(self, memory_ids: Collection[UUID]) -> dict[UUID, int]:
        """See `ScopedIndex`."""
        found: dict[UUID, int] = {}
        for chunk in chunks(list(memory_ids)):
            with self._engine.reading("look up", self._tenant) as reader:
                found |= reader.scroll(self._among(point_ids(self._tenant, chunk)), limit=len(chunk))[0]
        return found

    def versions(self, *, after: UUID | None = None, limit: int = 1000) -> tuple[dict[UUID, int], UUID | None]:
        """See `ScopedIndex`."""
        with self._engine.reading("list", self._tenant) as reader:
            return reader.scroll(within(self._tenant, Every()), limit=limit, after=after)

    def count(self, *, subject: UUID | None = None) -> int:
        """See `ScopedIndex`."""
        meant: Selection = Every()
        if subject is not None:
            meant = Some(tuple(Has(key, (str(subject),)) for key in (Key.USER, Key.AGENT, Key.APP, Key.RUN)))
        with self._engine.reading("count", self._tenant) as reader:
            return reader.count(within(self._tenant, meant))

    def _among(self, ids: Collection[UUID]) -> Selection:
        return within(self._tenant, Points(frozenset(ids)))

    def _more(self, ids: Collection[UUID], around: Collection[int], allowed: Selection) -> tuple[Selection, int]:
        """Return what means these points and those at these places that are allowed, and how many that may be."""
        if not around:
            return self._among(ids), len(ids)
        at = Has(Key.TOKENS, tuple(sorted(around)))
        # Two that were added at once may have one place.
        return Every((allowed, Some((Points(frozenset(ids)), at)))), len(ids) + 2 * len(around)

    def _by_meaning(self, vector: Sequence[float], where: Selection, limit: int) -> ByMeaning | None:
        return ByMeaning(vector, where, limit) if limit else None

    def _words(self, terms: SparseTerms, where: Selection, limit: int, *, scores_only: bool = False) -> ByWords | None:
        if not terms or limit == 0:
            return None
        return ByWords(terms, where, limit, corpus=within(self._tenant, Every()), scores_only=scores_only)


def found(points: Iterable[Any]) -> dict[int, Found]:
    """Return what a client library found, by the number of each id, which is hashed and compared faster than the id."""
    by_number = {}
    for point in points:
        id_ = point.id if isinstance(point.id, UUID) else UUID(str(point.id))
        by_number[id_.int] = Found(id_, point.score, point.payload)
    return by_number


def _strongest(near: Mapping[int, Found], worded: Mapping[int, Found]) -> list[int]:
    """Return the places of what will be among the best; what words alone have found is near by guess."""
    best = max((point.score for point in worded.values()), default=0.0)
    farthest = min((point.score for point in near.values()), default=0.0)
    guessed: dict[int, float] = {}
    for number, point in {**worded, **near}.items():
        place = place_of(point.payload)
        if place is not None:
            meaning = point.score if number in near else farthest
            bm25 = worded[number].score if number in worded else 0.0
            guessed[place] = strength(meaning, bm25, best)
    return nlargest(SEEDS, guessed, key=lambda place: (guessed[place], -place))


def chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield the items in parts that one call can take."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
