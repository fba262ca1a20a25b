"""One tenant's part of the embedded index: every call carries the tenant, whatever else is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from typing import Any, Final, Protocol
from uuid import UUID

import qdrant_edge as edge

from service.filters.ast import Node
from service.filters.lookup import Lookup
from service.index.edge_shard import DENSE, TERMS, Operation, checked, deletion, edge_filter, upserts
from service.index.filter_qdrant import compile_qdrant
from service.index.interface import Candidate, Dense, Point, SearchAnswer
from service.index.selection import Every, Key, Points, Selection, point_id, point_ids, within
from service.index.terms import SparseTerms
from service.scope import Scope

_IDENTITY: Final[list[str]] = [Key.MEMORY.value, Key.VERSION.value]
#: Points in one call: the engine holds the interpreter's lock until a call is done, 10 ms for as many.
_CHUNK: Final = 100


class Engine(Protocol):
    """What a scoped index needs of the index it is a part of."""

    dimensions: int

    def using(self, doing: str) -> AbstractContextManager[edge.EdgeShard]:
        """Lend the shard that serves now."""
        ...

    def write(
        self,
        operations: Sequence[Operation],
        *,
        stored: Collection[UUID] = (),
        removed: Collection[UUID] = (),
        replaced: int = 0,
    ) -> None:
        """Apply operations that store and remove these points; `replaced` of them had an older form."""
        ...


class EdgeScopedIndex:
    """See `ScopedIndex`."""

    def __init__(self, engine: Engine, scope: Scope) -> None:
        self._engine = engine
        self._tenant = scope.tenant_id
        self._bound = scope.users is not None

    def upsert(self, points: Sequence[Point]) -> None:
        """See `ScopedWriter`. Raises ValueError, and stores nothing, for a vector of a wrong size or not finite."""
        # All are made before the first is stored, so that a bad one stores none.
        made = [(chunk, upserts(self._tenant, chunk, self._engine.dimensions)) for chunk in _chunks(points)]
        for chunk, operations in made:
            ids = [point_id(self._tenant, point.memory_id) for point in chunk]
            replaced = sum(point.version > 1 for point in chunk)
            self._engine.write(operations, stored=ids, replaced=replaced)

    def delete(self, memory_ids: Collection[UUID]) -> None:
        """See `ScopedWriter`."""
        for chunk in _chunks(list(memory_ids)):
            ids = point_ids(self._tenant, chunk)
            self._engine.write([deletion(ids)], removed=ids)

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
    ) -> SearchAnswer:
        """See `ScopedIndex`. Raises ValueError for a bad vector, and when a bound scope comes without its users."""
        if self._bound and users is None:
            raise ValueError("the scope is bound to users: pass their surrogates")
        compiled = compile_qdrant(where, lookup)
        allowed = within(self._tenant, compiled.selection, users=users, on=on)
        meaning, words = self._meaning(vector), self._words(terms)
        with self._engine.using("search") as shard:
            near, worded = _run(shard, (meaning, allowed, limit), (words, allowed, limit))
            # What one side found alone gets its exact score from the other, so that the two can be weighed.
            only_worded, only_near = worded.keys() - near.keys(), near.keys() - worded.keys()
            near_more, worded_more = _run(
                shard,
                (meaning, self._among(only_worded), len(only_worded)),
                # Fewer than the limit were found by words: then these are all, and the others have no word in common.
                (words, self._among(only_near), len(only_near) if len(worded) == limit else 0),
            )
        exhausted = len(near) < limit
        near |= near_more
        worded |= worded_more
        candidates = [
            Candidate(*_identity(point.payload), semantic=point.score, bm25=worded[id_].score if id_ in worded else 0.0)
            for id_, point in near.items()
        ]
        return SearchAnswer(candidates, compiled.exact, exhausted)

    def existing(self, memory_ids: Collection[UUID]) -> dict[UUID, int]:
        """See `ScopedIndex`."""
        found: dict[UUID, int] = {}
        for chunk in _chunks(list(memory_ids)):
            with self._engine.using("look up") as shard:
                records, _ = shard.scroll(
                    edge.ScrollRequest(
                        limit=len(chunk),
                        filter=edge_filter(self._among(point_ids(self._tenant, chunk))),
                        with_payload=_IDENTITY,
                    )
                )
            found |= dict(_identity(record.payload) for record in records)
        return found

    def versions(self, *, after: UUID | None = None, limit: int = 1000) -> tuple[dict[UUID, int], UUID | None]:
        """See `ScopedIndex`."""
        with self._engine.using("list") as shard:
            records, cursor = shard.scroll(
                edge.ScrollRequest(
                    offset=after,
                    limit=limit,
                    filter=edge_filter(within(self._tenant, Every())),
                    with_payload=_IDENTITY,
                )
            )
        return dict(_identity(record.payload) for record in records), cursor if isinstance(cursor, UUID) else None

    def count(self) -> int:
        """See `ScopedIndex`."""
        with self._engine.using("count") as shard:
            return int(shard.count(edge.CountRequest(filter=edge_filter(within(self._tenant, Every())))))

    def _among(self, ids: Collection[UUID]) -> Selection:
        return within(self._tenant, Points(frozenset(ids)))

    def _meaning(self, vector: Dense) -> dict[str, Any]:
        query = edge.Query.Nearest(checked(vector, self._engine.dimensions), using=DENSE)
        # Every candidate passes here and is named once; by words only its score is asked for.
        return {"query": query, "with_payload": _IDENTITY}

    def _words(self, terms: SparseTerms) -> dict[str, Any] | None:
        if not terms:
            return None
        query = edge.Query.Nearest(edge.SparseVector(list(terms.ids), list(terms.weights)), using=TERMS)
        # How rare a word is, is counted over the tenant's own points.
        corpus = edge.IdfParams(corpus=edge_filter(within(self._tenant, Every())))
        return {"query": query, "params": edge.SearchParams(idf=corpus)}


def _run(shard: edge.EdgeShard, *asked: tuple[dict[str, Any] | None, Selection, int]) -> list[dict[Any, Any]]:
    """Run queries as one batch and return the points of each by id; one without a query or a limit finds nothing."""
    requests = {
        number: edge.QueryRequest(limit=limit, filter=edge_filter(where), **query)
        for number, (query, where, limit) in enumerate(asked)
        if query is not None and limit > 0
    }
    answers = shard.query_batch(edge.QueryBatchRequest(list(requests.values()))) if requests else []
    found = dict(zip(requests, answers, strict=True))
    return [{point.id: point for point in found.get(number, ())} for number in range(len(asked))]


def _identity(payload: Mapping[str, Any] | None) -> tuple[UUID, int]:
    payload = payload or {}
    return UUID(payload[Key.MEMORY]), int(payload[Key.VERSION])


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
