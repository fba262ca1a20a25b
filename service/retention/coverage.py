"""Finds what a new legal hold covers: nearly all of it before writers have to wait, and then only what changed since.

While a hold is being placed nobody writes memories of the tenant, so that none slips past it. What it covers is looked
for before that, however long it takes, and made its members. Under the lock, which every writer of the tenant waits
for, only the rows are looked at that were written since; of the members those leave again that are there no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Connection, Uuid, and_, bindparam, except_, select, text, true

from service.filters.ast import Node
from service.holds.guard import belongs_to
from service.holds.membership import add_members
from service.holds.tables import HoldMemberRow
from service.scope import Scope
from service.storage.filter_sql import compile_sql
from service.storage.kept_filters import lookup, meets
from service.storage.keyring import Keyring
from service.storage.record import Record, memories_table, one_of

_members: Final[Any] = HoldMemberRow.__table__  # type: ignore[attr-defined]
_m: Final[Any] = memories_table.c
#: The oldest transaction that may still write: what it and later ones write is all that a look from now on may miss.
_NOW: Final = text("SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text)")
_TAKE_BACK: Final = text("SELECT hold_take_back(:hold, :ids)").bindparams(bindparam("ids", type_=ARRAY(Uuid)))


@dataclass(frozen=True, slots=True)
class Covering:
    """What a hold is placed on: subjects (all of them together), a filter with surrogates in it, or memories."""

    subject_ids: Sequence[UUID] | None = None
    where: Node | None = None
    memory_ids: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True)
class Looked:
    """The memories that a hold covers, as they were at some time; `since` finds what was written later."""

    ids: Sequence[UUID]
    since: str


class Coverage:
    """Every method works inside the transaction that places the hold."""

    def __init__(self, keyring: Keyring, record: Record) -> None:
        self._keyring = keyring
        self._record = record

    def look(
        self, connection: Connection, scope: Scope, what: Covering, there: ColumnElement[bool] | None = None
    ) -> Looked:
        """Return the memories that a hold covers now, of those that are `there`."""
        since = str(connection.execute(_NOW).scalar_one())
        return Looked(self._matching(connection, scope, what, true() if there is None else there), since)

    def settle(
        self,
        connection: Connection,
        scope: Scope,
        hold_id: UUID,
        what: Covering,
        looked: Looked,
        there: ColumnElement[bool],
    ) -> Sequence[UUID]:
        """Make the memories that a hold covers its members, just these, and return them; what was looked at is already.

        Under the lock of the register.
        """
        # Whose subjects or id the hold names, that stays so; what meets a filter may meet it no more.
        candidates = self._clause(scope, what)[0] if what.where is None else _m.tenant_id == scope.tenant_id
        written = set(connection.execute(select(_m.id).where(candidates, _later_than(looked.since))).scalars())
        now = self._matching(connection, scope, what, and_(there, one_of(_m.id, list(written))))
        own = (_members.c.tenant_id == scope.tenant_id) & (_members.c.hold_id == hold_id)
        # Not one by one, which a plan that does not know of the new members would do.
        left = except_(select(_members.c.memory_id).where(own), select(_m.id).where(candidates, there))
        gone = set(connection.execute(left).scalars())
        gone |= written.intersection(looked.ids).difference(now)
        if gone:
            connection.execute(_TAKE_BACK, {"hold": hold_id, "ids": list(gone)})
        add_members(connection, scope, hold_id, now)
        return list(dict.fromkeys([*(one for one in looked.ids if one not in gone), *now]))

    def _matching(
        self, connection: Connection, scope: Scope, what: Covering, also: ColumnElement[bool]
    ) -> Sequence[UUID]:
        clause, is_exact = self._clause(scope, what)
        if is_exact:
            return list(connection.execute(select(_m.id).where(clause, also)).scalars())
        assert what.where is not None
        stored = self._record.stream(connection, scope, and_(clause, also), users=None, on=None)
        return [one.id for one in stored if meets(what.where, one)]

    def _clause(self, scope: Scope, what: Covering) -> tuple[ColumnElement[bool], bool]:
        """Return what keeps every memory that the hold covers, and whether it keeps no other."""
        if what.subject_ids is not None:
            return and_(*(belongs_to(one) for one in what.subject_ids)), True
        if what.where is None:
            return one_of(_m.id, what.memory_ids), True
        compiled = compile_sql(what.where, lookup(self._keyring, scope), memories_table)
        return compiled.clause, compiled.exact


def _later_than(since: str) -> ColumnElement[bool]:
    """Return the condition that a row may have been written since, whatever wrote it: no column tells that of all."""
    later = text("age(memories.xmin) <= age(CAST(CAST(:since AS xid8) AS xid))")
    return cast("ColumnElement[bool]", later.bindparams(since=since))
