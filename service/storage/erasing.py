"""Removes the rows of an erased subject, readable or not, in batches that each stand for themselves."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, delete, or_, select

from service.scope import Scope
from service.storage.outbox import GONE, enqueue
from service.storage.record import memories_table, one_of
from service.storage.tables import HistoryRow

_m: Final[Any] = memories_table.c
_history: Final[Any] = HistoryRow.__table__  # type: ignore[attr-defined]


def purge_memories(connection: Connection, scope: Scope, subject_id: UUID, *, limit: int) -> list[UUID]:
    """Remove some memories of a subject with their history, leaving no row, and tell the index of it.

    Returns their ids: fewer than `limit` when none is left. The caller has locked the subject against new ones.
    """
    theirs = or_(*(column == subject_id for column in (_m.user_id, _m.agent_id, _m.app_id, _m.run_id)))
    # Locked first: one that somebody else deletes meanwhile must not count.
    found = connection.execute(select(_m.id).where(theirs).order_by(_m.id).limit(limit).with_for_update())
    ids = list(found.scalars())
    connection.execute(delete(memories_table).where(one_of(_m.id, ids)))
    connection.execute(delete(_history).where(one_of(_history.c.memory_id, ids)))
    enqueue(connection, scope, dict.fromkeys(ids, GONE))
    return ids


def purge_history(connection: Connection, subject_id: UUID) -> None:
    """Remove what is left of a subject: the history of memories that were deleted earlier."""
    h = _history.c
    columns = (h.owner_id, h.user_id, h.agent_id, h.app_id, h.run_id)
    connection.execute(delete(_history).where(or_(*(column == subject_id for column in columns))))
