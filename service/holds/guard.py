"""The check that every delete and every rewrite meets, inside its own transaction: a hold that covers it refuses it.

The triggers of the database refuse the same once more, for code that forgets to ask. Whoever catches the refusal to
record it uses `Gate.recorded`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, exists, func, or_, select

from service.errors import LegalHold
from service.holds.tables import HoldMemberRow, HoldReleaseRow, HoldRow
from service.scope import Scope
from service.storage.record import memories_table, one_of

_holds: Final[Any] = HoldRow.__table__  # type: ignore[attr-defined]
_members: Final[Any] = HoldMemberRow.__table__  # type: ignore[attr-defined]
_releases: Final[Any] = HoldReleaseRow.__table__  # type: ignore[attr-defined]
_m: Final[Any] = memories_table.c


def is_live() -> ColumnElement[bool]:
    """Return the condition that a hold has not been released."""
    its = (_releases.c.tenant_id == _holds.c.tenant_id) & (_releases.c.hold_id == _holds.c.id)
    return ~select(_releases.c.hold_id).where(its).correlate(_holds).exists()


def belongs_to(subject_id: UUID, table: Any = memories_table) -> ColumnElement[bool]:
    """Return the condition that a memory of the record, or of another table of memories, belongs to a subject."""
    its = table.c
    return or_(*(column == subject_id for column in (its.user_id, its.agent_id, its.app_id, its.run_id)))


def wait_for_placing(connection: Connection) -> None:
    """Wait for holds that are being placed, and let none be placed until this transaction ends."""
    connection.execute(select(func.hold_shared()))


def held_among(connection: Connection, scope: Scope, memory_ids: Iterable[UUID]) -> dict[UUID, list[str]]:
    """Return those of the memories that a live hold covers, with the names of their holds. It waits as above."""
    found: dict[UUID, list[str]] = {}
    for row in _covering(connection, scope, list(memory_ids)):
        found.setdefault(row.memory_id, []).append(row.name)
    return found


def refusals_among(connection: Connection, scope: Scope, memory_ids: Iterable[UUID]) -> dict[UUID, LegalHold]:
    """Return, for those of the memories that a live hold covers, what refuses each of them. It waits as above."""
    holds: dict[UUID, list[Any]] = {}
    for row in _covering(connection, scope, list(memory_ids)):
        holds.setdefault(row.memory_id, []).append(row)
    return {
        memory_id: LegalHold([row.name for row in rows], hold_ids=[row.id for row in rows], memory_ids=[memory_id])
        for memory_id, rows in holds.items()
    }


def refuse_held(connection: Connection, scope: Scope, memory_ids: Iterable[UUID]) -> None:
    """Return when no live hold covers any of these memories; none can then be placed until this transaction ends.

    Raises:
        LegalHold: naming the holds.
    """
    rows = _covering(connection, scope, list(memory_ids))
    if rows:
        raise LegalHold(
            sorted({row.name for row in rows}),
            hold_ids=sorted({row.id for row in rows}),
            memory_ids=sorted({row.memory_id for row in rows}),
        )


def refuse_held_subject(connection: Connection, scope: Scope, subject_id: UUID) -> None:
    """Return when no live hold covers the subject or a memory that belongs to it, as `refuse_held`.

    To be called in the transaction that begins to remove the subject, before its key is destroyed.

    Raises:
        LegalHold: naming the holds.
    """
    theirs = select(_m.id).where(belongs_to(subject_id))
    covers = exists().where(
        _members.c.tenant_id == _holds.c.tenant_id,
        _members.c.hold_id == _holds.c.id,
        _members.c.memory_id.in_(theirs),
    )
    _refuse_any(connection, scope, or_(_holds.c.subject_ids.contains([subject_id]), covers))


def refuse_held_tenant(connection: Connection, scope: Scope) -> None:
    """Return when the tenant has no live hold at all, as `refuse_held`.

    Raises:
        LegalHold: naming the holds.
    """
    _refuse_any(connection, scope, _holds.c.id.is_not(None))


def _covering(connection: Connection, scope: Scope, memory_ids: list[UUID]) -> list[Any]:
    if not memory_ids:
        return []
    wait_for_placing(connection)
    query = (
        select(_members.c.memory_id, _holds.c.name, _holds.c.id)
        .join(_holds, (_holds.c.tenant_id == _members.c.tenant_id) & (_holds.c.id == _members.c.hold_id))
        .where(_members.c.tenant_id == scope.tenant_id, one_of(_members.c.memory_id, memory_ids), is_live())
        .order_by(_holds.c.name)
    )
    return list(connection.execute(query))


def _refuse_any(connection: Connection, scope: Scope, condition: ColumnElement[bool]) -> None:
    wait_for_placing(connection)
    query = select(_holds.c.name, _holds.c.id).where(_holds.c.tenant_id == scope.tenant_id, condition, is_live())
    rows = list(connection.execute(query.order_by(_holds.c.name)))
    if rows:
        raise LegalHold([row.name for row in rows], hold_ids=[row.id for row in rows])
