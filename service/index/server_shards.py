"""Which shard key of a collection on a cluster the points of a tenant are under, and how these keys are made."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from service.errors import IndexUnavailable
from service.scope import TenantId

#: Where a collection tells how many keys it was made with: in its metadata.
SHARD_KEYS: Final = "shard_keys"
#: How a refusal is called over HTTP and over gRPC.
_REFUSALS: Final = (400, 404, 422, "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")


def shard_keys(number: int) -> list[str]:
    """Return the names of so many keys.

    The number is a part of each name: a process that has not noticed yet that another collection serves asks for a key
    that is not there, and is refused, instead of looking for a tenant where another one is.
    """
    return [f"k{one}of{number}" for one in range(number)]


def shard_key(tenant_id: TenantId, number: int) -> str | None:
    """Return the key of a tenant among so many, the same for ever and in every process; None where there are none."""
    if not number:
        return None
    digest = hashlib.sha256(tenant_id.bytes).digest()
    return shard_keys(number)[int.from_bytes(digest[:8], "big") % number]


def made_with(info: models.CollectionInfo) -> int:
    """Return how many keys a collection was made with."""
    return int((info.config.metadata or {}).get(SHARD_KEYS) or 0)


def refused(error: Exception) -> bool:
    """Tell whether the server has understood a request and refused it, as it does for a key that is not there."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _REFUSALS
    code = getattr(error, "code", None)
    return callable(code) and getattr(code(), "name", None) in _REFUSALS


def make_missing(client: QdrantClient, name: str, number: int) -> None:
    """Make those of the keys of a collection that are not there; one that another process makes is as good.

    Each gets as many shards and replicas as the collection was made with.
    """
    there = _there(client, name)
    for key in shard_keys(number):
        if key in there:
            continue
        try:
            client.create_shard_key(name, key)
        except Exception as error:
            if key in _there(client, name):
                continue
            if refused(error):
                raise IndexUnavailable(
                    "The Qdrant server refuses to make shard keys, which only a cluster has: set `index.shard_keys` to "
                    "0, or start its nodes with QDRANT__CLUSTER__ENABLED=true."
                ) from None
            raise


def _there(client: QdrantClient, name: str) -> set[Any]:
    info = client.collection_cluster_info(name)
    return {shard.shard_key for shard in info.local_shards} | {shard.shard_key for shard in info.remote_shards}
