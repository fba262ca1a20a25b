"""What is asked of a Qdrant server, as its client library has it: filters, points, and how a collection is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from qdrant_client import models

from service.index.interface import Point
from service.index.points import checked, payload_of
from service.index.questions import ByMeaning, ByWords
from service.index.scanning import COMPRESS_KB, EF, OVERSAMPLING, QUANTILE, SCAN_KB
from service.index.scoped import chunks
from service.index.selection import (
    DENSE,
    IDENTITY,
    NEVER,
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
    point_id,
)
from service.index.server_shards import SHARD_KEYS
from service.scope import TenantId

Quantized = Literal["none", "scalar", "binary"]
#: Numbers in one write: some 9 MB over HTTP, of which a server takes 32 unless it is told otherwise.
_NUMBERS: Final = 300_000


@dataclass(frozen=True, slots=True)
class Layout:
    """How a collection is spread and stored on the server."""

    shards: int = 1
    replicas: int = 1
    write_consistency: int = 1
    quantization: Quantized = "scalar"
    on_disk: bool = False
    #: Groups of shards that the tenants are dealt to, each with `shards` shards; 0 spreads every tenant over all.
    shard_keys: int = 0


def collection(dimensions: int, layout: Layout, *, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `create_collection`.

    No graph over all tenants (`m=0`) and one for each tenant that is too large to be scanned. Strict mode: a filter on
    a field without an index is refused instead of reading every payload. With shard keys `shard_number` is that of
    each key.
    """
    keyed: dict[str, Any] = {"sharding_method": models.ShardingMethod.CUSTOM} if layout.shard_keys else {}
    if layout.shard_keys:
        metadata = {**metadata, SHARD_KEYS: layout.shard_keys}
    return keyed | {
        "vectors_config": {
            DENSE: models.VectorParams(size=dimensions, distance=models.Distance.COSINE, on_disk=layout.on_disk)
        },
        "sparse_vectors_config": {TERMS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        "hnsw_config": models.HnswConfigDiff(m=0, payload_m=16, ef_construct=100, full_scan_threshold=SCAN_KB),
        "optimizers_config": models.OptimizersConfigDiff(
            deleted_threshold=0.01, vacuum_min_vector_number=100, indexing_threshold=COMPRESS_KB
        ),
        "quantization_config": _quantization(layout.quantization),
        "shard_number": layout.shards,
        "replication_factor": layout.replicas,
        "write_consistency_factor": layout.write_consistency,
        "strict_mode_config": models.StrictModeConfig(
            enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
        ),
        "metadata": metadata,
    }


def payload_indexes() -> dict[Key, Any]:
    """Return the index of each field of a point; the tenant's keeps a tenant's points together on the disk."""
    # Graphs for the values of the other fields too would make indexing fifty times slower.
    surrogate = models.UuidIndexParams(type=models.UuidIndexType.UUID, enable_hnsw=False)
    moments = models.DatetimeIndexParams(type=models.DatetimeIndexType.DATETIME, enable_hnsw=False)
    number = models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, lookup=False, range=True, enable_hnsw=False
    )
    tokens = models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, lookup=True, range=False, enable_hnsw=False
    )
    tenant = models.UuidIndexParams(type=models.UuidIndexType.UUID, is_tenant=True, enable_hnsw=True)
    return {
        Key.TENANT: tenant,
        Key.MEMORY: surrogate,
        Key.USER: surrogate,
        Key.AGENT: surrogate,
        Key.APP: surrogate,
        Key.RUN: surrogate,
        Key.VERSION: number,
        Key.EXPIRES: number,
        Key.TOKENS: tokens,
        Key.CREATED: moments,
        Key.UPDATED: moments,
    }


def point_structs(
    tenant_id: TenantId, points: Sequence[Point], dimensions: int
) -> list[tuple[models.Filter, list[models.PointStruct]]]:
    """Return points grouped by version, each group with the condition under which it may replace what is there."""
    groups: dict[int, list[models.PointStruct]] = {}
    for point in points:
        vectors: dict[str, Any] = {DENSE: checked(point.dense, dimensions)}
        if point.text_terms:
            vectors[TERMS] = models.SparseVector(
                indices=list(point.text_terms.ids), values=list(point.text_terms.weights)
            )
        struct = models.PointStruct(
            id=str(point_id(tenant_id, point.memory_id)), vector=vectors, payload=payload_of(tenant_id, point)
        )
        groups.setdefault(point.version, []).append(struct)
    return [(server_filter(Between(Key.VERSION, lte=version)), group) for version, group in sorted(groups.items())]


def portions(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    """Yield points in parts that a server takes in one call: fewer at once where their texts are long."""
    for chunk in chunks(points):
        start, numbers = 0, 0
        for place, point in enumerate(chunk):
            own = len(point.dense) + len(point.text_terms.ids) + len(point.tokens)
            if place > start and numbers + own > _NUMBERS:
                yield chunk[start:place]
                start, numbers = place, 0
            numbers += own
        yield chunk[start:]


def query_request(
    question: ByMeaning | ByWords, *, own_idf: bool, quantization: Quantized = "none", key: str | None = None
) -> models.QueryRequest:
    """Return a question as one request of a batch; `own_idf` counts how rare a word is over its corpus.

    It asks the shards of `key`, or all of them. What quantised vectors find is compared again by the full ones, so that
    scores are the same as without.
    """
    more: dict[str, Any]
    back: list[str] | bool = IDENTITY
    match question:
        case ByMeaning(vector=vector):
            again = None
            if quantization != "none":
                again = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING[quantization])
            more = {
                "query": list(vector),
                "using": DENSE,
                "params": models.SearchParams(hnsw_ef=EF, quantization=again),
            }
        case ByWords(terms=terms, corpus=corpus, scores_only=scores_only):
            back = False if scores_only else IDENTITY
            more = {
                "query": models.SparseVector(indices=list(terms.ids), values=list(terms.weights)),
                "using": TERMS,
            }
            if own_idf:
                more["params"] = models.SearchParams(idf=models.IdfCorpusParams(corpus=server_filter(corpus)))
    return models.QueryRequest(
        limit=question.limit, filter=server_filter(question.where), with_payload=back, shard_key=key, **more
    )


def server_filter(selection: Selection) -> models.Filter:
    """Return the server's filter for a selection."""
    return models.Filter(must=[_condition(selection)])


def _condition(selection: Selection) -> Any:
    match selection:
        case Every(parts):
            return models.Filter(must=[_condition(part) for part in parts])
        case Some(()) | Has(_, ()):
            return models.HasIdCondition(has_id=[])
        case Some(parts):
            return models.Filter(should=[_condition(part) for part in parts])
        case Except(part):
            return models.Filter(must_not=[_condition(part)])
        case Has(key, (value,)):
            return models.FieldCondition(key=key.value, match=models.MatchValue(value=value))
        case Has(key, values):
            return models.FieldCondition(key=key.value, match=models.MatchAny(any=list(values)))
        case IsSet(Key.EXPIRES):
            return models.FieldCondition(key=Key.EXPIRES.value, range=models.Range(lt=NEVER))
        case IsSet(key):
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key.value))
            return models.Filter(must_not=[empty])
        case Points(ids):
            return models.HasIdCondition(has_id=[str(one) for one in ids])
        case Between(key, gt, gte, lt, lte):
            bounds = {"gt": gt, "gte": gte, "lt": lt, "lte": lte}
            given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
            if any(isinstance(bound, datetime) for bound in given.values()):
                return models.FieldCondition(key=key.value, range=models.DatetimeRange(**given))
            return models.FieldCondition(key=key.value, range=models.Range(**given))


def _quantization(kind: Quantized) -> models.ScalarQuantization | models.BinaryQuantization | None:
    match kind:
        case "scalar":
            return models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=QUANTILE, always_ram=True)
            )
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None
