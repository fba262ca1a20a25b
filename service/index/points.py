"""The form of a point in the engine, embedded or served: names of its vectors, its payload, and what is read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import numpy as np

from service.index.interface import Point
from service.index.selection import NEVER, PLACE, Key
from service.index.times import moment
from service.scope import TenantId


def payload_of(
    tenant_id: TenantId, point: Point, called: Callable[[TenantId, UUID], UUID] = lambda _, surrogate: surrogate
) -> dict[str, Any]:
    """Return the payload of a point: subjects as they are called, tokens and times, nothing that one can read."""
    payload: dict[Key, Any] = {
        Key.TENANT: str(tenant_id),
        Key.MEMORY: str(point.memory_id),
        Key.VERSION: point.version,
        Key.TOKENS: [*point.tokens, *([] if point.place is None else [point.place])],
        Key.CREATED: moment(point.created_at),
        Key.UPDATED: moment(point.updated_at),
        Key.EXPIRES: NEVER if point.expires_on is None else point.expires_on.toordinal(),
    }
    subjects = {
        Key.USER: point.user_id,
        Key.AGENT: point.agent_id,
        Key.APP: point.app_id,
        Key.RUN: point.run_id,
    }
    payload |= {key: str(called(tenant_id, surrogate)) for key, surrogate in subjects.items() if surrogate is not None}
    placed = {} if point.place is None else {PLACE: point.place}
    return {key.value: value for key, value in payload.items()} | placed


def identity(payload: Mapping[str, Any] | None) -> tuple[UUID, int]:
    """Return the memory and the version that a payload is of."""
    payload = payload or {}
    return UUID(payload[Key.MEMORY]), int(payload[Key.VERSION])


def checked(vector: Any, dimensions: int) -> list[float]:
    """Return a vector as an engine takes it, or raise ValueError: wrong size or not finite."""
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (dimensions,) or not np.isfinite(array).all():
        raise ValueError(f"the index takes vectors of {dimensions} finite numbers, not of shape {array.shape}")
    numbers: list[float] = array.tolist()
    return numbers
