"""One Qdrant Edge shard on the disk: its configuration, the form of its points and filters, and its errors."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import qdrant_edge as edge

from service.errors import IndexUnavailable
from service.index.failures import failures
from service.index.interface import Point
from service.index.points import DENSE, TERMS, checked, moment, payload_of
from service.index.scanning import COMPRESS_KB, QUANTILE, SCAN_KB
from service.index.selection import (
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
from service.scope import TenantId

_WHAT_TO_DO: Final = "if this goes on, run `memvault index rebuild`."

Operation = edge.UpdateOperation


class Shard:
    """A shard that counts who uses it, so that it can be closed under way. Every failure is `IndexUnavailable`.

    The engine holds the interpreter's lock for the whole of a call, so calls must be small: `optimize` in particular
    stops all threads of the process and is called by `service.index.edge_compact` in a process of its own only.
    """

    def __init__(self, shard: edge.EdgeShard, folder: Path) -> None:
        self._shard = shard
        self.folder = folder
        self._changed = threading.Condition()
        self._users = 0
        self._closed = False

    @classmethod
    def create(cls, folder: Path, dimensions: int) -> Shard:
        """Make an empty shard in a folder that is empty or not there."""
        folder.mkdir(mode=0o700, exist_ok=True)
        with failures("create", what_to_do=_WHAT_TO_DO):
            shard = edge.EdgeShard.create(str(folder), _config(dimensions))
            for key, params in _indexes().items():
                shard.update(Operation.create_field_index(key.value, params))
            return cls(shard, folder)

    @classmethod
    def load(cls, folder: Path) -> Shard:
        """Open the shard of a folder."""
        with failures("load", what_to_do=_WHAT_TO_DO):
            return cls(edge.EdgeShard.load(str(folder)), folder)

    @contextmanager
    def use(self, doing: str) -> Iterator[edge.EdgeShard]:
        """Lend the shard. It is not closed before the block is left."""
        with self._changed:
            if self._closed:
                raise IndexUnavailable("The index is closed: the service is shutting down.")
            self._users += 1
        try:
            with failures(doing, what_to_do=_WHAT_TO_DO):
                yield self._shard
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def apply(self, operations: Sequence[Operation]) -> None:
        """Apply operations in their order."""
        with self.use("write") as shard:
            for operation in operations:
                shard.update(operation)

    def close(self) -> None:
        """Let go of the files when the last user has left. Closing twice is closing once."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: self._users == 0)
        with failures("close", what_to_do=_WHAT_TO_DO):
            self._shard.close()


def upserts(tenant_id: TenantId, points: Sequence[Point], dimensions: int) -> list[Operation]:
    """Return the operations that store points, each only over an older one.

    Two writers that read the record one after the other may come here in the other order; the condition lets the newer
    version win. It is part of the operation, so points are grouped by version.
    """
    groups: dict[int, list[edge.Point]] = {}
    for point in points:
        groups.setdefault(point.version, []).append(_point(tenant_id, point, dimensions))
    return [
        Operation.upsert_points(group, condition=edge_filter(Between(Key.VERSION, lte=version)))
        for version, group in sorted(groups.items())
    ]


def deletion(point_ids: Collection[UUID]) -> Operation:
    """Return the operation that removes points."""
    return Operation.delete_points(list(point_ids))


def edge_filter(selection: Selection) -> edge.Filter:
    """Return the engine's filter for a selection."""
    return edge.Filter(must=[_condition(selection)])


def _condition(selection: Selection) -> Any:
    match selection:
        case Every(parts):
            return edge.Filter(must=[_condition(part) for part in parts])
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


def _point(tenant_id: TenantId, point: Point, dimensions: int) -> edge.Point:
    vectors: dict[str, Any] = {DENSE: checked(point.dense, dimensions)}
    if point.text_terms:
        vectors[TERMS] = edge.SparseVector(list(point.text_terms.ids), list(point.text_terms.weights))
    return edge.Point(point_id(tenant_id, point.memory_id), vectors, payload_of(tenant_id, point))


def _config(dimensions: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine)},
        sparse_vectors={TERMS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        # No graph over all tenants (m=0), one for each tenant that is too large to be scanned.
        hnsw_config=edge.HnswIndexConfig(m=0, payload_m=16, ef_construct=100, full_scan_threshold=SCAN_KB),
        quantization_config=edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=QUANTILE),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=0.01, vacuum_min_vector_number=100, indexing_threshold=COMPRESS_KB
        ),
    )


def _indexes() -> dict[Key, Any]:
    # Graphs for the values of the other fields too: 101 s instead of 2 s to index 50,000 points.
    surrogate = edge.UuidIndexParams(enable_hnsw=False)
    moment = edge.DatetimeIndexParams(enable_hnsw=False)
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
        Key.CREATED: moment,
        Key.UPDATED: moment,
    }
