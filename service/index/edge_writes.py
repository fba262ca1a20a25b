"""What is written to a shard, as it goes to the shard's process and into the journal of a compaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from service.scope import TenantId


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """One point: `dense` are 32-bit floats in the order of the machine, `payload` is what the engine keeps."""

    id: UUID
    version: int
    dense: bytes
    words: tuple[Sequence[int], Sequence[float]] | None
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Store:
    """Store points of a tenant, each only over an older one."""

    tenant_id: TenantId
    points: Sequence[StoredPoint]


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove points of a tenant; those that are not there are passed over."""

    tenant_id: TenantId
    ids: Sequence[UUID]


Write: TypeAlias = Store | Remove
