"""How a collection that is there differs from the settings: what is changed in place, and what needs a rebuild."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qdrant_client import models

from service.index.selection import DENSE
from service.index.server_requests import Layout, collection, payload_indexes
from service.index.server_shards import made_with


@dataclass(frozen=True, slots=True)
class Differences:
    """What to change, as arguments of `update_collection`; fields without their index; what cannot be changed."""

    changes: dict[str, Any] = field(default_factory=dict)
    unindexed: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()


def differences(info: models.CollectionInfo, layout: Layout, dimensions: int) -> Differences:
    """Compare a collection with the settings. The server applies changes in the background, searches go on."""
    wanted, has = collection(dimensions, layout, metadata={}), info.config
    changes: dict[str, Any] = {}
    params: dict[str, int] = {}
    if has.params.replication_factor != layout.replicas:
        params["replication_factor"] = layout.replicas
    if has.params.write_consistency_factor != layout.write_consistency:
        params["write_consistency_factor"] = layout.write_consistency
    if params:
        changes["collection_params"] = models.CollectionParamsDiff(**params)
    if _said(has.quantization_config) != _said(wanted["quantization_config"]):
        changes["quantization_config"] = wanted["quantization_config"] or models.Disabled.DISABLED
    vectors = has.params.vectors
    if isinstance(vectors, dict) and bool(vectors[DENSE].on_disk) != layout.on_disk:
        changes["vectors_config"] = {DENSE: models.VectorParamsDiff(on_disk=layout.on_disk)}
    if (has.hnsw_config.m, has.hnsw_config.payload_m) != (wanted["hnsw_config"].m, wanted["hnsw_config"].payload_m):
        changes["hnsw_config"] = wanted["hnsw_config"]
    strict = {} if has.strict_mode_config is None else _said(has.strict_mode_config)
    if not _said(wanted["strict_mode_config"]).items() <= strict.items():
        changes["strict_mode_config"] = wanted["strict_mode_config"]
    fixed = []
    if has.params.shard_number is not None and has.params.shard_number != layout.shards:
        fixed.append(f"index.shards is {layout.shards}, the collection was made with {has.params.shard_number}")
    if made_with(info) != layout.shard_keys:
        fixed.append(f"index.shard_keys is {layout.shard_keys}, the collection was made with {made_with(info)}")
    missing = tuple(key.value for key in payload_indexes() if key.value not in info.payload_schema)
    return Differences(changes, missing, tuple(fixed))


def _said(settings: Any) -> dict[str, Any]:
    return {} if settings is None else dict(settings.model_dump(exclude_none=True))
