"""One tenant's part of an index: every call carries the tenant, whatever else is asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date
from typing import Final, Protocol, TypeVar
from uuid import UUID

from service.filters.ast import Node
from service.filters.lookup import Lookup
from service.index.candidates import Candidates
from service.index.filter_qdrant import compile_qdrant
from service.index.interface import Dense, Point, SearchAnswer
from service.index.questions import Finding, Search, SparseTerms
from service.index.selection import (
    SUBJECTS,
    Every,
    Has,
    Points,
    Selection,
    Some,
    naming_subjects,
    point_ids,
    within,
)
from service.scope import Scope, SubjectKind, TenantId

_T = TypeVar("_T")
#: Points in one call. The embedded engine does one call after the other, and takes 10 ms for as many.
CHUNK: Final = 100


class Reader(Protocol):
    """What can be asked of the points of all tenants. Selections carry the tenant; this is not checked again."""

    def find(self, search: Search) -> Finding:
        """Carry out a search."""
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

    def subject(self, tenant_id: TenantId, surrogate: UUID) -> UUID:
        """Return what a subject is called in the points of its tenant."""
        ...

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
        compiled = compile_qdrant(where, _Called(lookup, self._called))
        if users is not None:
            users = frozenset(map(self._called, users))
        allowed = within(self._tenant, compiled.selection, users=users, on=on)
        search = Search(
            self._engine.checked(vector),
            terms,
            allowed,
            within(self._tenant, naming_subjects(compiled.selection), users=users),
            limit,
            # An inexact filter may let in what it should not, around too.
            neighbours=neighbours and compiled.exact,
        )
        with self._engine.reading("search", self._tenant) as reader:
            found = reader.find(search)
        return SearchAnswer(
            Candidates(found.rows), compiled.exact, found.exhausted, found.semantic_left, found.bm25_left
        )

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
            called = str(self._called(subject))
            meant = Some(tuple(Has(key, (called,)) for key in sorted(SUBJECTS)))
        with self._engine.reading("count", self._tenant) as reader:
            return reader.count(within(self._tenant, meant))

    def _called(self, surrogate: UUID) -> UUID:
        return self._engine.subject(self._tenant, surrogate)

    def _among(self, ids: Collection[UUID]) -> Selection:
        return within(self._tenant, Points(frozenset(ids)))


class _Called:
    """A lookup whose subjects have the names that an index has for them (`Lookup`)."""

    def __init__(self, lookup: Lookup, called: Callable[[UUID], UUID]) -> None:
        self._lookup = lookup
        self._called = called

    def subject(self, kind: SubjectKind, name: str) -> UUID | None:
        """See `Lookup`."""
        surrogate = self._lookup.subject(kind, name)
        return None if surrogate is None else self._called(surrogate)

    def token(self, text: str) -> int:
        """See `Lookup`."""
        return self._lookup.token(text)


def chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield the items in parts that one call can take."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
