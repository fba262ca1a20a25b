"""Forgets what has served its time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete

from service import clock
from service.memories.adds import IDEMPOTENCY_LIFE
from service.memories.tables import EventRow, IdempotencyRow

_idempotency: Final[Any] = IdempotencyRow.__table__  # type: ignore[attr-defined]
_events: Final[Any] = EventRow.__table__  # type: ignore[attr-defined]


def forget_old_keys(connection: Connection) -> int:
    """Remove the idempotency keys that are past their life; return how many."""
    old = delete(_idempotency).where(_idempotency.c.created_at < clock.now() - IDEMPOTENCY_LIFE)
    return int(connection.execute(old).rowcount)


def forget_old_events(connection: Connection, *, before: datetime) -> int:
    """Remove the events of adds that ended before a moment; return how many. What they made stays."""
    return int(connection.execute(delete(_events).where(_events.c.completed_at < before)).rowcount)
