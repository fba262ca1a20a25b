"""The check that every delete and every rewrite meets, inside its own transaction: a hold that covers it refuses it.

The triggers of the database refuse the same once more, for code that forgets to ask. Whoever catches the refusal to
record it uses `Gate.recorded`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, exists, func, or_, select, true, union
from sqlalchemy.dialects.postgresql import array

from service.errors import LegalHold
from service.holds.tables import HoldMemberRow, HoldReleaseRow, HoldRow
from service.scope import Scope
from service.storage.record import memories_table, one_of
from service.storage.tables import HistoryRow

_holds: Final[Any] = HoldRow.__table__  # type: ignore[attr-defined]
_members: Final[Any] = HoldMemberRow.__table__  # type: ignore[attr-defined]
_releases: Final[Any] = HoldReleaseRow.__table__  # type: ignore[attr-defined]
_history: Final[Any] = HistoryRow.__table__  # type: ignore[attr-defined]
_m: Final[Any] = memories_table.c
_h: Final[Any] = _history.c


def is_live() -> ColumnElement[bool]:
    """Return the condition that a hold has not been released."""
    its = (_releases.c.tenant_id == _holds.c.tenant_id) & (_releases.c.hold_id == _holds.c.id)
    return ~select(_releases.c.hold_id).where(its).correlate(_holds).exists()


def belongs_to(subject_id: Any, table: Any = memories_table) -> ColumnElement[bool]:
    """Return the condition that a memory of the record, or of another table of memories, belongs to a subject."""
    its = table.c
    return or_(*(column == subject_id for column in (its.user_id, its.agent_id, its.app_id, its.run_id)))


def wait_for_placing(connection: Connection) -> None:
    """Wait for holds that are being placed, and let none be placed until this transaction ends."""
    connection.execute(select(func.hold_shared()))


def held_among(
    connection: Connection, scope: Scope, memory_ids: Iterable[UUID], *, history: bool = False
) -> dict[UUID, list[str]]:
    """Return those of the memories that a live hold covers, with the names of their holds. It waits as above.

    With `history` also those of whose history a hold covers something, whether they are there or were deleted before.
    """
    found: dict[UUID, list[str]] = {}
    for row in _covering(connection, scope, list(memory_ids), history=history):
        found.setdefault(row.memory_id, []).append(row.name)
    return found


def refusals_among(
    connection: Connection, scope: Scope, memory_ids: Iterable[UUID], *, history: bool = False
) -> dict[UUID, LegalHold]:
    """Return, for those of the memories that a live hold covers, what refuses each of them, as `held_among`."""
    holds: dict[UUID, list[Any]] = {}
    for row in _covering(connection, scope, list(memory_ids), history=history):
        holds.setdefault(row.memory_id, []).append(row)
    return {
        memory_id: LegalHold([row.name for row in rows], hold_ids=[row.id for row in rows], memory_ids=[memory_id])
        for memory_id, rows in holds.items()
    }


def refuse_held(connection: Connection, scope: Scope, memory_ids: Iterable[UUID], *, history: bool = False) -> None:
    """Return when no live hold covers any of these memories; none can then be placed until this transaction ends.

    With `history` nor anything of their history, as `held_among`.

    Raises:
        LegalHold: naming the holds.
    """
    rows = _covering(connection, scope, list(memory_ids), history=history)
    if rows:
        raise LegalHold(
            sorted({row.name for row in rows}),
            hold_ids=sorted({row.id for row in rows}),
            memory_ids=sorted({row.memory_id for row in rows}),
        )


def refuse_held_subject(connection: Connection, scope: Scope, subject_id: UUID) -> None:
    """Return when no live hold covers the subject, or a row that would leave with it, as `refuse_held`.

    Such rows are the memories that belong to it and the history that does, of memories that were deleted before too: a
    hold on one of those who share them covers them as well. To be called in the transaction that begins to remove the
    subject, before its key is destroyed.

    Raises:
        LegalHold: naming the holds.
    """
    theirs = select(_m.id).where(_m.tenant_id == scope.tenant_id, belongs_to(subject_id))
    steps = select(_h.memory_id).where(_h.tenant_id == scope.tenant_id, belongs_to(subject_id, _history))
    # Each set of subjects once, however many rows have it: they are far fewer than rows.
    together = union(
        select(_together(memories_table)).where(_m.tenant_id == scope.tenant_id, belongs_to(subject_id)),
        select(_together(_history)).where(_h.tenant_id == scope.tenant_id, belongs_to(subject_id, _history)),
        # Steps of what another had under the same id, before it was deleted and came back from elsewhere.
        select(_together(_history)).where(_h.tenant_id == scope.tenant_id, _h.memory_id.in_(theirs)),
    ).subquery()
    # None of them refers to the hold that is looked at, so that each is asked once for all holds.
    condition = or_(
        _holds.c.subject_ids.contains([subject_id]),
        _holds.c.id.in_(_with_member(scope, theirs)),
        _holds.c.id.in_(_with_member(scope, steps)),
        _holds.c.id.in_(_covering_any(scope, together.c.subject_ids)),
    )
    _refuse_any(connection, scope, condition)


def refuse_held_tenant(connection: Connection, scope: Scope) -> None:
    """Return when the tenant has no live hold at all, as `refuse_held`.

    Raises:
        LegalHold: naming the holds.
    """
    _refuse_any(connection, scope, _holds.c.id.is_not(None))


def held_texts(connection: Connection, scope: Scope) -> list[UUID]:
    """Return the memories that were deleted and of whose history, where texts are kept, a live hold covers some.

    It waits as above.
    """
    wait_for_placing(connection)
    query = (
        _with_held_history(scope)
        .with_only_columns(_h.memory_id)
        .where(_h.content.is_not(None), ~exists().where(_m.tenant_id == _h.tenant_id, _m.id == _h.memory_id))
    )
    return list(connection.execute(query).scalars())


def _covering(connection: Connection, scope: Scope, memory_ids: list[UUID], *, history: bool = False) -> list[Any]:
    if not memory_ids:
        return []
    wait_for_placing(connection)
    query = (
        select(_members.c.memory_id, _holds.c.name, _holds.c.id)
        .join(_holds, (_holds.c.tenant_id == _members.c.tenant_id) & (_holds.c.id == _members.c.hold_id))
        .where(_members.c.tenant_id == scope.tenant_id, one_of(_members.c.memory_id, memory_ids), is_live())
        .order_by(_holds.c.name)
    )
    rows = list(connection.execute(query))
    if history:
        steps = _with_held_history(scope).where(one_of(_h.memory_id, memory_ids))
        known = {(row.memory_id, row.id) for row in rows}
        rows += [row for row in connection.execute(steps) if (row.memory_id, row.id) not in known]
    return rows


def _with_held_history(scope: Scope) -> Select[Any]:
    """Return the query of the memories of whose history a live hold covers something by its subjects."""
    among, own = _among(_together(_history))
    query = select(_h.memory_id, _holds.c.name, _holds.c.id).distinct().select_from(_history)
    return (
        query.join(among, true())
        .join(_holds, own)
        .where(_h.tenant_id == scope.tenant_id, _holds.c.tenant_id == scope.tenant_id, is_live())
    )


def _covering_any(scope: Scope, together: Any) -> Select[Any]:
    """Return the query of the holds that cover one of some sets of subjects, a column of a subquery."""
    among, own = _among(together)
    query = select(_holds.c.id).distinct().select_from(together.table)
    return query.join(among, true()).join(_holds, own).where(_holds.c.tenant_id == scope.tenant_id)


def _among(together: ColumnElement[Any]) -> tuple[Any, ColumnElement[bool]]:
    """Return what a row with these subjects is joined to, and how that is to the holds that cover it.

    Its subjects meet the first ones of the holds, by a hash, before all of a hold's are looked for among them, as the
    triggers do: to compare every row with every hold takes seconds in a tenant of many.
    """
    among = func.unnest(together).table_valued("subject_id").render_derived().lateral()
    return among, (_holds.c.subject_ids[1] == among.c.subject_id) & _holds.c.subject_ids.contained_by(together)


def _together(table: Any) -> ColumnElement[Any]:
    """Return the subjects that a row of a table belongs to, as one array."""
    its = table.c
    return array([its.user_id, its.agent_id, its.app_id, its.run_id]).label("subject_ids")


def _with_member(scope: Scope, memory_ids: Select[Any]) -> Select[Any]:
    """Return the query of the holds that have one of some memories as a member."""
    its = (_members.c.tenant_id == scope.tenant_id) & _members.c.memory_id.in_(memory_ids)
    return select(_members.c.hold_id).distinct().where(its)


def _refuse_any(connection: Connection, scope: Scope, condition: ColumnElement[bool]) -> None:
    wait_for_placing(connection)
    query = select(_holds.c.name, _holds.c.id).where(_holds.c.tenant_id == scope.tenant_id, condition, is_live())
    rows = list(connection.execute(query.order_by(_holds.c.name)))
    if rows:
        raise LegalHold([row.name for row in rows], hold_ids=[row.id for row in rows])
