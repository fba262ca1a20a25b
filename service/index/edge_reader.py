"""Asks one Qdrant Edge shard: questions go in as our own shapes, points come out as ours (`Reader`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import qdrant_edge as edge

from service.index.edge_shard import edge_filter
from service.index.points import DENSE, IDENTITY, TERMS, identity
from service.index.rarity import Rarity
from service.index.scanning import EF, OVERSAMPLING
from service.index.scoped import ByMeaning, ByWords, Found, found
from service.index.selection import Selection, Some

# The full vectors have the last word on the order; a shard that was not compacted yet has nothing else.
_BY_MEANING: Final = edge.SearchParams(
    hnsw_ef=EF, quantization=edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING["scalar"])
)


# Counting how rare words are goes through all points of the corpus, 4 ms for 100,000, in each batch. Over no points all
# words are equally rare: then a query can bring its own weights.
_NOTHING: Final = edge.SearchParams(idf=edge.IdfParams(corpus=edge_filter(Some())))


class EdgeReader:
    """See `Reader`. `rarity` remembers what the words of the tenant weigh whose questions these are."""

    def __init__(self, shard: edge.EdgeShard, rarity: Rarity) -> None:
        self._shard = shard
        self._rarity = rarity

    def ask(self, asked: Sequence[ByMeaning | ByWords | None]) -> list[dict[int, Found]]:
        """See `Reader`."""
        requests = [None if question is None else self._request(question) for question in asked]
        sent = [request for request in requests if request is not None]
        answers = iter(self._shard.query_batch(edge.QueryBatchRequest(sent)) if sent else ())
        return [{} if request is None else found(next(answers)) for request in requests]

    def scroll(self, where: Selection, *, limit: int, after: UUID | None = None) -> tuple[dict[UUID, int], UUID | None]:
        """See `Reader`."""
        records, cursor = self._shard.scroll(
            edge.ScrollRequest(offset=after, limit=limit, filter=edge_filter(where), with_payload=IDENTITY)
        )
        return dict(identity(record.payload) for record in records), cursor if isinstance(cursor, UUID) else None

    def count(self, where: Selection) -> int:
        """See `Reader`."""
        return int(self._shard.count(edge.CountRequest(filter=edge_filter(where))))

    def _request(self, question: ByMeaning | ByWords) -> edge.QueryRequest | None:
        more: dict[str, Any]
        back: list[str] | bool = IDENTITY
        match question:
            case ByMeaning(vector=vector):
                more = {"query": edge.Query.Nearest(list(vector), using=DENSE), "params": _BY_MEANING}
            case ByWords(scores_only=scores_only):
                back = False if scores_only else IDENTITY
                weighed = self._weighed(question)
                if weighed is None:
                    return None
                more = {"query": edge.Query.Nearest(weighed, using=TERMS), "params": _NOTHING}
        return edge.QueryRequest(limit=question.limit, filter=edge_filter(question.where), with_payload=back, **more)

    def _weighed(self, question: ByWords) -> edge.SparseVector | None:
        """Return the words that the corpus has, each with how rare it is there; None when it has none of them."""
        terms = question.terms
        weights = self._rarity.weights(
            terms.ids,
            weigh=lambda missing: self._rare(missing, question.corpus),
            count=lambda: int(self._shard.count(edge.CountRequest(filter=edge_filter(question.corpus), exact=False))),
        )
        weighed = {id_: weight * weights[id_] for id_, weight in zip(terms.ids, terms.weights, strict=True)}
        there = {id_: weight for id_, weight in weighed.items() if weight > 0}
        return edge.SparseVector(list(there), list(there.values())) if there else None

    def _rare(self, terms: Sequence[int], corpus: Selection) -> dict[int, float]:
        """Return by how much each word counts more over the corpus than over no points; 0 for one that it lacks.

        A word alone finds its best point with a score that is its rarity times what the point has of it, so that two
        scores of one point tell the rarity.
        """
        where = edge_filter(corpus)
        counted = edge.SearchParams(idf=edge.IdfParams(corpus=where))
        words = [edge.Query.Nearest(edge.SparseVector([term], [1.0]), using=TERMS) for term in terms]
        requests = [
            edge.QueryRequest(limit=1, query=word, filter=where, params=params)
            for params in (counted, _NOTHING)
            for word in words
        ]
        answers = self._shard.query_batch(edge.QueryBatchRequest(requests))
        over_corpus, over_nothing = answers[: len(terms)], answers[len(terms) :]
        return {
            term: one[0].score / other[0].score if one and other else 0.0
            for term, one, other in zip(terms, over_corpus, over_nothing, strict=True)
        }
