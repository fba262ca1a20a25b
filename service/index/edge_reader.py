"""Asks one Qdrant Edge shard: questions go in as our own shapes, points come out as ours (`Reader`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast
from uuid import UUID

import qdrant_edge as edge

from service.index.edge_shard import edge_filter
from service.index.points import DENSE, IDENTITY, TERMS, identity
from service.index.scanning import EF, OVERSAMPLING
from service.index.scoped import ByMeaning, ByWords, Found
from service.index.selection import Selection

# The full vectors have the last word on the order; a shard that was not compacted yet has nothing else.
_BY_MEANING: Final = edge.SearchParams(
    hnsw_ef=EF, quantization=edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING["scalar"])
)


class EdgeReader:
    """See `Reader`."""

    def __init__(self, shard: edge.EdgeShard) -> None:
        self._shard = shard

    def ask(self, asked: Sequence[ByMeaning | ByWords | None]) -> list[dict[UUID, Found]]:
        """See `Reader`."""
        requests = {number: _request(question) for number, question in enumerate(asked) if question is not None}
        answers = self._shard.query_batch(edge.QueryBatchRequest(list(requests.values()))) if requests else []
        found = dict(zip(requests, answers, strict=True))
        return [
            {cast(UUID, point.id): Found(point.score, point.payload) for point in found.get(number, ())}
            for number in range(len(asked))
        ]

    def scroll(self, where: Selection, *, limit: int, after: UUID | None = None) -> tuple[dict[UUID, int], UUID | None]:
        """See `Reader`."""
        records, cursor = self._shard.scroll(
            edge.ScrollRequest(offset=after, limit=limit, filter=edge_filter(where), with_payload=IDENTITY)
        )
        return dict(identity(record.payload) for record in records), cursor if isinstance(cursor, UUID) else None

    def count(self, where: Selection) -> int:
        """See `Reader`."""
        return int(self._shard.count(edge.CountRequest(filter=edge_filter(where))))


def _request(question: ByMeaning | ByWords) -> edge.QueryRequest:
    more: dict[str, Any]
    back: list[str] | bool = IDENTITY
    match question:
        case ByMeaning(vector=vector):
            more = {"query": edge.Query.Nearest(list(vector), using=DENSE), "params": _BY_MEANING}
        case ByWords(terms=terms, corpus=corpus, scores_only=scores_only):
            back = False if scores_only else IDENTITY
            words = edge.SparseVector(list(terms.ids), list(terms.weights))
            params = edge.SearchParams(idf=edge.IdfParams(corpus=edge_filter(corpus)))
            more = {"query": edge.Query.Nearest(words, using=TERMS), "params": params}
    return edge.QueryRequest(limit=question.limit, filter=edge_filter(question.where), with_payload=back, **more)
