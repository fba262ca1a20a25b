"""Forgets what has served its time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, select

from service import clock
from service.memories.adds import IDEMPOTENCY_LIFE
from service.memories.tables import EventRow, IdempotencyRow
from service.storage.record import one_of
from service.storage.tables import MessageRow

_idempotency: Final[Any] = IdempotencyRow.__table__  # type: ignore[attr-defined]
_events: Final[Any] = EventRow.__table__  # type: ignore[attr-defined]
_messages: Final[Any] = MessageRow.__table__  # type: ignore[attr-defined]


def forget_old_keys(connection: Connection) -> int:
    """Remove the idempotency keys that are past their life; return how many."""
    return int(connection.execute(delete(_idempotency).where(_old_keys())).rowcount)


def any_old_keys() -> ColumnElement[bool]:
    """Return the condition that the tenant has an idempotency key that is past its life."""
    return exists().where(_old_keys())


def forget_old_events(connection: Connection, *, before: datetime) -> int:
    """Remove the events of adds that ended before a moment; return how many. What they made stays.

    Their messages that are kept for context go with them: whose these are is known by the event alone, so that no
    erasure and no deletion would find them afterwards.
    """
    # Whatever ended by then had begun by then, which an index tells.
    old = and_(_events.c.completed_at < before, _events.c.created_at < before)
    of_old = select(_events.c.id).where(old)
    connection.execute(delete(_messages).where(_messages.c.event_id.in_(of_old)))
    return int(connection.execute(delete(_events).where(old)).rowcount)


def forget_stray_messages(connection: Connection, *, limit: int) -> int:
    """Remove messages whose event is gone, at most so many, and return how many. Earlier releases left them behind."""
    stray = select(_messages.c.id).where(~exists().where(_events.c.id == _messages.c.event_id)).limit(limit)
    ids = list(connection.execute(stray).scalars())
    return int(connection.execute(delete(_messages).where(one_of(_messages.c.id, ids))).rowcount)


def _old_keys() -> ColumnElement[bool]:
    old: ColumnElement[bool] = _idempotency.c.created_at < clock.now() - IDEMPOTENCY_LIFE
    return old
