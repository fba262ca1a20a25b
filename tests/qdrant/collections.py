"""How the tests' Qdrant remembers a collection's settings, which the engine in the client library does not keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qdrant_client import QdrantClient, models


@dataclass
class Collection:
    """What a collection was made with and changed to."""

    settings: models.CreateCollection
    fields: dict[str, Any] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    #: Keys whose nodes are gone.
    down: set[str] = field(default_factory=set)

    @property
    def custom(self) -> bool:
        """Whether it is the caller who says where a point goes."""
        return self.settings.sharding_method is models.ShardingMethod.CUSTOM


class Refused(Exception):
    """What the server answers with 400."""


class Gone(Exception):
    """What the server answers with 500: nobody has the shards."""


#: The field that stands for the place of a point; the engine in the client library has no shards.
_WHERE = "the-shard-key"


def addressed(collection: Collection, key: Any, *, write: bool) -> str | None:
    """Whose shards a request goes to, None for all of them; refused as by a server."""
    if key is None and collection.custom and write:
        raise Refused("Wrong input: Shard key not specified")
    if key is not None and key not in collection.keys:
        raise Refused(f"Wrong input: Shard key {key} not found")
    if collection.down & ({key} if key is not None else set(collection.keys)):
        raise Gone("Service internal error: The replica set has no active replicas")
    return None if key is None else str(key)


def placed(points: list[models.PointStruct], key: str | None) -> list[models.PointStruct]:
    """The points as they are kept in the shards of a key."""
    if key is None:
        return points
    return [one.model_copy(update={"payload": {**(one.payload or {}), _WHERE: key}}) for one in points]


def narrowed(condition: models.Filter | None, key: str | None) -> models.Filter | None:
    """The condition, in the shards of a key."""
    if key is None:
        return condition
    here = models.FieldCondition(key=_WHERE, match=models.MatchValue(value=key))
    return models.Filter(must=[here] if condition is None else [here, condition])


def chosen(selector: Any, key: str | None) -> Any:
    """The points that a deletion means, in the shards of a key."""
    if key is None:
        return selector
    if isinstance(selector, models.PointIdsList):
        condition = models.Filter(must=[models.HasIdCondition(has_id=selector.points)])
    else:
        condition = selector.filter
    return models.FilterSelector(filter=narrowed(condition, key) or models.Filter())


def spread(collection: Collection) -> models.CollectionClusterInfo:
    """Where the shards of a collection are: the first half of the keys here, the others on another node."""
    half = len(collection.keys) // 2
    return models.CollectionClusterInfo(
        peer_id=1,
        shard_count=len(collection.keys),
        local_shards=[
            models.LocalShardInfo(shard_id=number, shard_key=key, points_count=0, state=models.ReplicaState.ACTIVE)
            for number, key in enumerate(collection.keys[:half])
        ],
        remote_shards=[
            models.RemoteShardInfo(shard_id=half + number, shard_key=key, peer_id=2, state=models.ReplicaState.ACTIVE)
            for number, key in enumerate(collection.keys[half:])
        ],
        shard_transfers=[],
    )


Made = dict[str, Collection]


def actual(engine: QdrantClient, name: str) -> str:
    """The name of the collection that a name or an alias stands for."""
    return {one.alias_name: one.collection_name for one in engine.get_aliases().aliases}.get(name, name)


def described(engine: QdrantClient, name: str, made: Made) -> models.CollectionInfo:
    """What the server tells of a collection."""
    collection = made[actual(engine, name)]
    given = collection.settings
    hnsw = given.hnsw_config or models.HnswConfigDiff()
    optimizers = given.optimizers_config or models.OptimizersConfigDiff()
    return models.CollectionInfo(
        status=models.CollectionStatus.GREEN,
        optimizer_status=models.OptimizersStatusOneOf.OK,
        points_count=engine.count(name).count,
        segments_count=1,
        config=models.CollectionConfig(
            params=models.CollectionParams(
                vectors=given.vectors,
                sparse_vectors=given.sparse_vectors,
                shard_number=given.shard_number or 1,
                sharding_method=given.sharding_method,
                replication_factor=given.replication_factor or 1,
                write_consistency_factor=given.write_consistency_factor or 1,
                on_disk_payload=True,
            ),
            hnsw_config=models.HnswConfig(
                m=16 if hnsw.m is None else hnsw.m,
                ef_construct=hnsw.ef_construct or 100,
                full_scan_threshold=hnsw.full_scan_threshold or 10_000,
                payload_m=hnsw.payload_m,
            ),
            optimizer_config=models.OptimizersConfig(
                deleted_threshold=optimizers.deleted_threshold or 0.2,
                vacuum_min_vector_number=optimizers.vacuum_min_vector_number or 1000,
                default_segment_number=0,
                indexing_threshold=optimizers.indexing_threshold,
                flush_interval_sec=5,
            ),
            wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
            quantization_config=given.quantization_config,
            strict_mode_config=None
            if given.strict_mode_config is None
            else models.StrictModeConfigOutput(**given.strict_mode_config.model_dump(exclude_none=True)),
            metadata=given.metadata,
        ),
        payload_schema={
            name: models.PayloadIndexInfo(data_type=schema.type.value, params=schema, points=0)
            for name, schema in collection.fields.items()
        },
    )


def changed(engine: QdrantClient, name: str, made: Made, body: models.UpdateCollection) -> None:
    """Change the settings of a collection as the server does: only what is named."""
    collection = made[actual(engine, name)]
    changes: dict[str, Any] = {}
    if body.params is not None:
        changes |= body.params.model_dump(exclude_none=True, include={"replication_factor", "write_consistency_factor"})
    if body.quantization_config is not None:
        off = body.quantization_config is models.Disabled.DISABLED
        changes["quantization_config"] = None if off else body.quantization_config
    if body.hnsw_config is not None:
        changes["hnsw_config"] = body.hnsw_config
    if body.strict_mode_config is not None:
        changes["strict_mode_config"] = body.strict_mode_config
    if body.vectors is not None and isinstance(collection.settings.vectors, dict):
        changes["vectors"] = {
            key: params.model_copy(update={"on_disk": body.vectors[key].on_disk} if key in body.vectors else {})
            for key, params in collection.settings.vectors.items()
        }
    collection.settings = collection.settings.model_copy(update=changes)
