"""Removes the memories of an erased subject, readable or not, in batches that each stand for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, or_, select

from service.scope import Scope
from service.storage.erasers import erase_with_memories
from service.storage.outbox import GONE, enqueue
from service.storage.record import memories_table, one_of
from service.storage.tables import HistoryRow

_m: Final[Any] = memories_table.c
_h: Final[Any] = HistoryRow.__table__.c  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Removed:
    """What one batch removed: memories by id, and how many rows of which table.

    `sealed_elsewhere` of the memories were sealed under the key of another subject, which stays.
    """

    memory_ids: Sequence[UUID] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    sealed_elsewhere: int = 0


def purge_memories(connection: Connection, scope: Scope, subject_id: UUID, *, limit: int) -> Removed:
    """Remove some memories of a subject with all that hangs on them, leaving no row, and tell the index of it.

    Fewer than `limit` are removed when none is left. The caller has locked the subject against new ones.
    """
    theirs = or_(*(column == subject_id for column in (_m.user_id, _m.agent_id, _m.app_id, _m.run_id)))
    # Locked first: one that somebody else deletes meanwhile must not count.
    query = select(_m.id, _m.owner_id).where(theirs).order_by(_m.id).limit(limit).with_for_update()
    rows = connection.execute(query).all()
    removed = remove_memories(connection, scope, [row.id for row in rows])
    return replace(removed, sealed_elsewhere=sum(row.owner_id != subject_id for row in rows))


def purge_tenant_memories(connection: Connection, scope: Scope, *, limit: int) -> Removed:
    """Remove some memories of the tenant with all that hangs on them: fewer than `limit` when none is left."""
    found = connection.execute(select(_m.id).order_by(_m.id).limit(limit).with_for_update())
    return remove_memories(connection, scope, list(found.scalars()))


def lock_memories(connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Return those of these memories that are there, locked."""
    return list(connection.execute(select(_m.id).where(one_of(_m.id, ids)).order_by(_m.id).with_for_update()).scalars())


def lock_matching(connection: Connection, where: ColumnElement[bool], *, users: frozenset[UUID] | None) -> list[UUID]:
    """Return the memories that match, of these users only where they are given, locked in the order of their ids.

    One that somebody else deletes at present is waited for, and is not among them once it is gone.
    """
    query = select(_m.id).where(where)
    if users is not None:
        query = query.where(_m.user_id.in_(list(users)))
    return list(connection.execute(query.order_by(_m.id).with_for_update()).scalars())


def deleted_with_texts(connection: Connection) -> list[UUID]:
    """Return the memories that are deleted and whose history still has texts, where those are kept."""
    query = select(_h.memory_id).distinct().where(_h.content.is_not(None), _h.memory_id.not_in(select(_m.id)))
    return list(connection.execute(query).scalars())


def remove_memories(connection: Connection, scope: Scope, ids: Sequence[UUID]) -> Removed:
    """Remove memories, which are locked, with every row that hangs on them, and tell the index of it."""
    if not ids:
        return Removed()
    rows = erase_with_memories(connection, ids)
    rows["memories"] = int(connection.execute(delete(memories_table).where(one_of(_m.id, ids))).rowcount)
    enqueue(connection, scope, dict.fromkeys(ids, GONE))
    return Removed(ids, rows)
