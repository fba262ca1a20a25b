"""One open Qdrant Edge shard: its configuration, what it is asked and what is written to it, in its own terms.

Nothing here may import what is slow to import: every shard has a process of its own, which loads this module.
"""

from __future__ import annotations

import os
import pickle
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from math import log
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import qdrant_edge as edge

from service.index.edge_writes import Remove, Store, StoredPoint, Write
from service.index.finding import Found, find, found
from service.index.questions import ByMeaning, ByWords, Finding, Search
from service.index.rarity import Corpora
from service.index.scanning import COMPRESS_KB, EF, OVERSAMPLING
from service.index.selection import (
    DENSE,
    IDENTITY,
    SUBJECTS,
    TERMS,
    Between,
    Every,
    Except,
    Has,
    IsSet,
    Key,
    Points,
    Selection,
    Some,
)
from service.index.times import moment
from service.scope import TenantId

#: One answers where it is asked. More wait for each other: of 100,000 points a search took a fifth longer with two, and
#: a quarter more of the processor.
_THREADS: Final = 1
_SUBJECTS: Final = [key.value for key in SUBJECTS]
#: Days of expiry that are remembered.
_DAYS: Final = 64
#: The folder of a shard that holds its points; its log of writes lies beside.
_SEGMENTS: Final = "segments"
#: Bytes that are read at a time.
_READ: Final = 8 << 20
# The full vectors have the last word on the order; a shard that was not compacted yet has nothing else.
_BY_MEANING: Final = edge.SearchParams(
    hnsw_ef=EF, quantization=edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING["turbo"])
)


class EdgeEngine:
    """An open shard. For one process; failures are whatever the engine raises, which may quote what was sent."""

    def __init__(self, shard: edge.EdgeShard) -> None:
        self.shard = shard
        self._corpora = Corpora()
        #: By day whether anything had expired before it, as long as nothing is written.
        self._ended: dict[int, bool] = {}

    @classmethod
    def create(cls, folder: Path, dimensions: int, scan_kb: int) -> EdgeEngine:
        """Make an empty shard in a folder without one. A tenant below `scan_kb` kilobytes of vectors gets no graph."""
        shard = edge.EdgeShard.create(str(folder), _config(dimensions, scan_kb))
        for key, params in _indexes().items():
            shard.update(edge.UpdateOperation.create_field_index(key.value, params))
        return cls(shard)

    @classmethod
    def load(cls, folder: Path) -> EdgeEngine:
        """Open the shard of a folder."""
        # With a configuration at hand the engine would make an empty shard of an empty folder.
        if not any((folder / _SEGMENTS).iterdir()):
            raise FileNotFoundError("the folder has no segment")
        _read_ahead(folder)
        # What is not named here stays as the shard was made.
        return cls(
            edge.EdgeShard.load(str(folder), edge.EdgeConfig(sparse_vectors=_words(), max_search_threads=_THREADS))
        )

    def find(self, tenant_id: TenantId, search: Search) -> Finding:
        """Carry out a search of one tenant."""
        search = replace(search, allowed=self._without_idle_end(search.allowed))
        return find(partial(self._ask, tenant_id), search)

    def scroll(self, where: Selection, limit: int, after: UUID | None) -> tuple[list[dict[str, Any]], UUID | None]:
        """Return what says which memories some points are, in the order of the points, and the point to go on with."""
        records, cursor = self.shard.scroll(
            edge.ScrollRequest(offset=after, limit=limit, filter=edge_filter(where), with_payload=IDENTITY)
        )
        return [record.payload or {} for record in records], cursor if isinstance(cursor, UUID) else None

    def count(self, where: Selection) -> int:
        """Return how many points are meant."""
        return int(self.shard.count(edge.CountRequest(filter=edge_filter(where))))

    def uncompressed(self) -> int:
        """Return how many points have vectors that are not compressed or indexed yet: 14 ms for 100,000 points."""
        info = self.shard.info()
        # Words count as indexed wherever they are.
        worded = self.shard.count(edge.CountRequest(filter=edge.Filter(must=[edge.HasVectorCondition(TERMS)])))
        return max(0, int(info.points_count + worded - info.indexed_vectors_count))

    def write(self, writes: Sequence[Write]) -> None:
        """Carry out writes in their order."""
        self._ended.clear()
        for one in writes:
            match one:
                case Store(tenant_id, points):
                    for operation in _upserts(points):
                        self.shard.update(operation)
                    self._corpora.changed(tenant_id, (point.payload for point in points))
                case Remove(tenant_id, ids):
                    # The words of the users whose points go are counted anew, and nobody else's: scores must not tell.
                    gone = self.shard.retrieve(list(ids), with_payload=_SUBJECTS, with_vector=False)
                    self.shard.update(edge.UpdateOperation.delete_points(list(ids)))
                    self._corpora.changed(tenant_id, (point.payload or {} for point in gone))

    def export(self, after: UUID | None, limit: int) -> tuple[bytes, UUID | None]:
        """Return some points, all that they have, in a form for `take`, and the point to go on with."""
        found, cursor = self.shard.scroll(
            edge.ScrollRequest(offset=after, limit=limit, with_payload=True, with_vector=True)
        )
        points = []
        for one in found:
            vectors: Any = one.vector or {}
            words = vectors.get(TERMS)
            points.append(
                (
                    one.id,
                    array("f", vectors[DENSE]),
                    None if words is None else (words.indices, words.values),
                    one.payload,
                )
            )
        return pickle.dumps(points, pickle.HIGHEST_PROTOCOL), cursor if isinstance(cursor, UUID) else None

    def take(self, exported: bytes) -> None:
        """Store what `export` gave."""
        self._ended.clear()
        points = [
            edge.Point(id_, _vectors(dense.tolist(), words), payload)
            for id_, dense, words, payload in pickle.loads(exported)
        ]
        if points:
            self.shard.update(edge.UpdateOperation.upsert_points(points))

    def optimize(self) -> None:
        """Compress and index what is there. Takes a quarter of a second for 1,000 points."""
        self.shard.optimize()

    def flush(self) -> None:
        """Make everything that was written durable."""
        self.shard.flush()

    def close(self) -> None:
        """Flush and let go of the files."""
        self.shard.close()

    def _without_idle_end(self, allowed: Selection) -> Selection:
        """Return the same without the day of expiry where nothing had expired before it.

        That condition is asked of every point, 1.5 ms for 100,000 of them. Whether one has expired is told in 20 µs.
        """
        if not isinstance(allowed, Every):
            return allowed
        return Every(tuple(part for part in allowed.parts if not self._is_idle(part)))

    def _is_idle(self, part: Selection) -> bool:
        match part:
            case Between(Key.EXPIRES, gt=None, gte=int(day), lt=None, lte=None):
                if day not in self._ended:
                    if len(self._ended) >= _DAYS:
                        self._ended.clear()
                    self._ended[day] = bool(self.scroll(Between(Key.EXPIRES, lt=day), 1, None)[0])
                return not self._ended[day]
        return False

    def _ask(self, tenant_id: TenantId, asked: Sequence[ByMeaning | ByWords | None]) -> list[dict[int, Found]]:
        requests = [None if question is None else self._request(tenant_id, question) for question in asked]
        sent = [request for request in requests if request is not None]
        answers = iter(self.shard.query_batch(edge.QueryBatchRequest(sent)) if sent else ())
        return [{} if request is None else found(next(answers)) for request in requests]

    def _request(self, tenant_id: TenantId, question: ByMeaning | ByWords) -> edge.QueryRequest | None:
        more: dict[str, Any]
        back: list[str] | bool = IDENTITY
        match question:
            case ByMeaning(vector=vector):
                more = {"query": edge.Query.Nearest(list(vector), using=DENSE), "params": _BY_MEANING}
            case ByWords(scores_only=scores_only):
                back = False if scores_only else IDENTITY
                weighed = self._weighed(tenant_id, question)
                if weighed is None:
                    return None
                more = {"query": edge.Query.Nearest(weighed, using=TERMS), "params": _NOTHING}
        return edge.QueryRequest(limit=question.limit, filter=edge_filter(question.where), with_payload=back, **more)

    def _weighed(self, tenant_id: TenantId, question: ByWords) -> edge.SparseVector | None:
        """Return the words that the corpus has, each with how rare it is there; None when it has none of them."""
        terms = question.terms
        weights = self._corpora.of(tenant_id, question.corpus).weights(
            terms.ids,
            weigh=lambda missing: self._rare(missing, question.corpus),
            count=lambda: int(self.shard.count(edge.CountRequest(filter=edge_filter(question.corpus)))),
        )
        weighed = {id_: weight * weights[id_] for id_, weight in zip(terms.ids, terms.weights, strict=True)}
        there = {id_: weight for id_, weight in weighed.items() if weight > 0}
        return edge.SparseVector(list(there), list(there.values())) if there else None

    def _rare(self, terms: Sequence[int], corpus: Selection) -> dict[int, float]:
        """Return by how much each word counts more over the corpus than over no points; 0 for one that it lacks.

        A word alone finds its best point with a score that is its rarity times what the point has of it.
        """
        where = edge_filter(corpus)
        counted = edge.SearchParams(idf=edge.IdfParams(corpus=where))
        requests = [
            edge.QueryRequest(
                limit=1,
                query=edge.Query.Nearest(edge.SparseVector([term], [1.0]), using=TERMS),
                filter=where,
                params=counted,
                with_vector=[TERMS],
            )
            for term in terms
        ]
        answers = self.shard.query_batch(edge.QueryBatchRequest(requests))
        return {
            term: best[0].score / _has_of(best[0], term) / _OVER_NOTHING if best else 0.0
            for term, best in zip(terms, answers, strict=True)
        }


def edge_filter(selection: Selection) -> edge.Filter:
    """Return the engine's filter for a selection, with as little in it as says the same.

    What is asked of every point costs most of a scan: 1.5 ms for a condition and 0.5 ms for a filter in a filter, of
    100,000 points. A subject says its tenant too (`own_subject`), so that the tenant is not asked for beside it.
    """
    parts = tuple(_together(selection))
    if any(isinstance(part, Has) and part.key in SUBJECTS for part in parts):
        parts = tuple(part for part in parts if not (isinstance(part, Has) and part.key == Key.TENANT))
    return edge.Filter(must=[_condition(part) for part in parts])


def _together(selection: Selection) -> Iterator[Selection]:
    """Yield what must hold together, without the nodes that only join it."""
    match selection:
        case Every(parts):
            for part in parts:
                yield from _together(part)
        case _:
            yield selection


def _condition(selection: Selection) -> Any:
    match selection:
        case Every():
            return edge_filter(selection)
        case Some(()) | Has(_, ()):
            return edge.HasIdCondition(set())
        case Some(parts):
            return edge.Filter(should=[_condition(part) for part in parts])
        case Except(part):
            return edge.Filter(must_not=[_condition(part)])
        case Has(key, (value,)):
            return edge.FieldCondition(key.value, match=edge.MatchValue(value))
        case Has(key, values):
            return edge.FieldCondition(key.value, match=edge.MatchAny(list(values)))  # type: ignore[arg-type]
        case IsSet(key):
            return edge.Filter(must_not=[edge.IsEmptyCondition(key.value)])
        case Points(ids):
            return edge.HasIdCondition(set(ids))
        case Between(key, gt, gte, lt, lte):
            bounds = {"gt": gt, "gte": gte, "lt": lt, "lte": lte}
            given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
            if any(isinstance(bound, datetime) for bound in given.values()):
                times = {name: moment(bound) for name, bound in given.items()}
                return edge.FieldCondition(key.value, range=edge.RangeDateTime(**times))
            return edge.FieldCondition(key.value, range=edge.RangeFloat(**given))


# Counting how rare words are goes through all points of the corpus, 4 ms for 100,000, in each batch. Over no points all
# words are equally rare: then a query can bring its own weights.
_NOTHING: Final = edge.SearchParams(idf=edge.IdfParams(corpus=edge_filter(Some())))
#: How rare they then are: ln(1 + (N - n + 0.5) / (n + 0.5)) with none of none.
_OVER_NOTHING: Final = log(2)


def _has_of(point: Any, term: int) -> float:
    """Return the weight that a stored point has of a word."""
    words = point.vector[TERMS]
    return float(words.values[words.indices.index(term)])


def _upserts(points: Sequence[StoredPoint]) -> list[edge.UpdateOperation]:
    """Return the operations that store points, each only over an older one.

    Two writers that read the record one after the other may come here in the other order; the condition lets the newer
    version win. It is part of the operation, so points are grouped by version.
    """
    groups: dict[int, list[edge.Point]] = {}
    for point in points:
        dense = array("f")
        dense.frombytes(point.dense)
        made = edge.Point(point.id, _vectors(dense.tolist(), point.words), dict(point.payload))
        groups.setdefault(point.version, []).append(made)
    return [
        edge.UpdateOperation.upsert_points(group, condition=edge_filter(Between(Key.VERSION, lte=version)))
        for version, group in sorted(groups.items())
    ]


def _vectors(dense: list[float], words: tuple[Sequence[int], Sequence[float]] | None) -> dict[str, Any]:
    vectors: dict[str, Any] = {DENSE: dense}
    if words is not None:
        vectors[TERMS] = edge.SparseVector(list(words[0]), list(words[1]))
    return vectors


def _read_ahead(folder: Path) -> None:
    """Read the segments into the page cache, where the engine then finds them.

    On its own it waits for the disk page by page, a second and more for 100,000 points. What cannot be read is left to
    the engine to report.
    """
    with suppress(OSError):
        for path, _, names in os.walk(folder / _SEGMENTS):
            for name in names:
                with open(os.path.join(path, name), "rb", buffering=0) as file:
                    while file.read(_READ):
                        pass


def _config(dimensions: int, scan_kb: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine)},
        sparse_vectors=_words(),
        # No graph over all tenants (m=0), one for each tenant that is too large to be scanned.
        hnsw_config=edge.HnswIndexConfig(m=0, payload_m=16, ef_construct=100, full_scan_threshold=scan_kb),
        quantization_config=edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=0.01, vacuum_min_vector_number=100, indexing_threshold=COMPRESS_KB
        ),
        max_search_threads=_THREADS,
    )


def _words() -> dict[str, edge.EdgeSparseVectorParams]:
    return {TERMS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)}


def _indexes() -> dict[Key, Any]:
    # Graphs for the values of the other fields too: 101 s instead of 2 s to index 50,000 points.
    surrogate = edge.UuidIndexParams(enable_hnsw=False)
    time = edge.DatetimeIndexParams(enable_hnsw=False)
    number = edge.IntegerIndexParams(lookup=False, range=True, enable_hnsw=False)
    return {
        Key.TENANT: edge.UuidIndexParams(is_tenant=True, enable_hnsw=True),
        Key.MEMORY: surrogate,
        Key.USER: surrogate,
        Key.AGENT: surrogate,
        Key.APP: surrogate,
        Key.RUN: surrogate,
        Key.VERSION: number,
        Key.EXPIRES: number,
        Key.TOKENS: edge.IntegerIndexParams(lookup=True, range=False, enable_hnsw=False),
        Key.CREATED: time,
        Key.UPDATED: time,
    }
