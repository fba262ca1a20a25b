"""Placing, reading and releasing legal holds: one person places, another releases, and both are in the trail."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, not_, or_, select, true

from service import clock
from service.audit.details import Covers, HoldPlaced, HoldRead, HoldReleased, HoldsListed, Reason
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.auth.people import are_related, find_person
from service.errors import Conflict, Forbidden, InvalidInput, NameTaken, NotFound
from service.filters.ast import EVERYTHING, Node
from service.holds.guard import belongs_to
from service.holds.membership import add_members
from service.holds.register import HoldState, Register, Signature, StoredHold
from service.memories.limits import check_characters, check_names
from service.policy.gate import Gate
from service.records import Page, SubjectNames
from service.retention.coverage import Coverage, Covering
from service.retention.hold_journal import HoldJournal
from service.retention.pinning import pin
from service.scope import Action, Caller, PrincipalKind, Scope
from service.storage.database import Database
from service.storage.kept_filters import pinned_subjects, unpinned
from service.storage.keyring import Keyring
from service.storage.record import memories_table, one_of
from service.storage.tables import HistoryRow
from service.tenants.actions import is_leaving
from service.tenants.subjects import Subjects

_history: Final[Any] = HistoryRow.__table__  # type: ignore[attr-defined]
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_REASON_CHARS: Final = 2000
_MOST_IDS: Final = 10_000


@dataclass(frozen=True, slots=True)
class NewHold:
    """A hold to place: on subjects (all of them together), on a filter, or on memories; exactly one of them."""

    name: str
    reason: str
    subjects: SubjectNames = field(default_factory=SubjectNames)
    where: Node | None = None
    memory_ids: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as it is told, with the names of who still exists."""

    stored: StoredHold
    subjects: SubjectNames
    where: Node | None

    @property
    def covers(self) -> Covers:
        """What the hold was placed on."""
        if self.stored.subject_ids:
            return Covers.SUBJECTS
        return Covers.MEMORIES if self.stored.where is None else Covers.FILTER


class Holds:
    """The legal holds of a tenant."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        subjects: Subjects,
        trail: Trail,
        gate: Gate,
        journal: HoldJournal,
        coverage: Coverage,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._subjects = subjects
        self._trail = trail
        self._gate = gate
        self._journal = journal
        self._coverage = coverage
        self._register = Register(keyring)

    def place(self, caller: Caller, scope: Scope, new: NewHold) -> Hold:
        """Place a hold. What it covers now, and what is written later and matches, is neither deleted nor changed.

        Nothing slips past it: from when nearly all of that was found until it has committed, writers of the tenant's
        memories wait.

        Raises:
            Forbidden: for a principal that is bound to users, or behind which no person is known.
            InvalidInput: for a bad name or reason, or not exactly one thing to cover.
            NotFound: when one of the memories that are named does not exist.
            NameTaken: when another hold has or had the name.
            Conflict: when a subject that is named, or the tenant, is being erased, or one that shares with all of the
                subjects a memory, or the history of one.
        """
        self._gate.check(caller, Action.PLACE_HOLD, targets=new.memory_ids)
        self._gate.check_unbound(caller, Action.PLACE_HOLD)
        placed = self._signature(caller, Action.PLACE_HOLD)
        _check(new)
        hold_id = clock.new_id()
        missing: Sequence[UUID] = ()
        with self._trail.conflicts(caller, Action.PLACE_HOLD), self._database.transaction(scope) as connection:
            subject_ids, where = self._pinned(connection, scope, new)
            what = Covering(subject_ids, where, new.memory_ids)
            looked = self._coverage.look(connection, scope, what, self._there(connection))
            free = self._register.place(
                connection,
                scope,
                hold_id,
                new.name,
                subject_ids=subject_ids,
                where=where,
                reason=new.reason,
                placed=placed,
            )
            if not free:
                raise NameTaken("name: another hold has it; names are not used twice, take a new one")
            add_members(connection, scope, hold_id, looked.ids)
            self._register.lock(connection)
            named = set(subject_ids or ()) if where is None else pinned_subjects(where)
            self._refuse_leaving(connection, scope, named, shared_by=subject_ids or ())
            covered = self._coverage.settle(connection, scope, hold_id, what, looked, self._there(connection))
            if missing := sorted(set(new.memory_ids).difference(covered)):
                connection.rollback()
            else:
                hold = self._get(connection, scope, hold_id)
                self._trail.write(
                    connection,
                    caller,
                    AuditEvent.HOLD_PLACED,
                    subjects=subject_ids or (),
                    targets=[hold_id],
                    results=covered,
                    detail=HoldPlaced(covers=hold.covers, members=len(covered)),
                    # One row for each thousand of them, in one trip.
                    may_wait=True,
                )
                self._journal.placed(connection, scope, hold.stored, covered)
        if missing:
            self._not_found(
                caller, scope, AuditEvent.HOLD_PLACED, missing, HoldPlaced(covers=Covers.MEMORIES, members=0)
            )
            raise NotFound(f"memory_ids: {len(missing)} of them do not exist; nothing was placed")
        return hold

    def list(self, caller: Caller, scope: Scope, state: HoldState | None, *, page: int, size: int) -> Page[Hold]:
        """Return one page of the tenant's holds, the newest first."""
        self._gate.check(caller, Action.LIST_HOLDS)
        self._gate.check_unbound(caller, Action.LIST_HOLDS)
        with self._database.transaction(scope) as connection:
            found, total = self._register.page(connection, scope, state, skip=(page - 1) * size, size=size)
            holds = [self._told(connection, scope, one) for one in found]
            self._trail.write(
                connection,
                caller,
                AuditEvent.HOLDS_LISTED,
                targets=[one.id for one in found],
                detail=HoldsListed(page=page, total=total),
            )
        return Page(holds, total, page, size)

    def get(self, caller: Caller, scope: Scope, hold_id: UUID) -> Hold:
        """Return one hold.

        Raises:
            NotFound: when the tenant has no such hold.
        """
        self._gate.check(caller, Action.GET_HOLD, targets=[hold_id])
        self._gate.check_unbound(caller, Action.GET_HOLD)
        with self._database.transaction(scope) as connection:
            found = self._register.find(connection, scope, hold_id)
            outcome = Outcome.DONE if found else Outcome.NOT_FOUND
            hold = self._told(connection, scope, found) if found else None
            self._trail.write(connection, caller, AuditEvent.HOLD_READ, targets=[hold_id], outcome=outcome)
        if hold is None:
            raise NotFound("there is no such hold")
        return hold

    def members(
        self, caller: Caller, scope: Scope, hold_id: UUID, *, page: int, size: int
    ) -> Page[tuple[UUID, datetime]]:
        """Return one page of the memories that a hold covers, by id, and since when.

        Raises:
            NotFound: when the tenant has no such hold.
        """
        self._gate.check(caller, Action.GET_HOLD, targets=[hold_id])
        self._gate.check_unbound(caller, Action.GET_HOLD)
        with self._database.transaction(scope) as connection:
            hold = self._register.find(connection, scope, hold_id)
            found = (
                []
                if hold is None
                else self._register.members(connection, scope, hold_id, skip=(page - 1) * size, size=size)
            )
            self._trail.write(
                connection,
                caller,
                AuditEvent.HOLD_READ,
                targets=[hold_id],
                results=[memory_id for memory_id, _ in found],
                outcome=Outcome.NOT_FOUND if hold is None else Outcome.DONE,
                detail=HoldRead(page=page, total=0 if hold is None else hold.members),
            )
        if hold is None:
            raise NotFound("there is no such hold")
        return Page(found, hold.members, page, size)

    def release(self, caller: Caller, scope: Scope, hold_id: UUID, reason: str) -> Hold:
        """Release a hold, for good: the memories can be deleted and changed again, unless another hold covers them.

        Raises:
            Forbidden: for the person who placed it, a key that made the other or was made by it, a principal that is
                bound to users, or one behind which no person is known.
            NotFound: when the tenant has no such hold.
            Conflict: when it is released already.
        """
        self._gate.check(caller, Action.RELEASE_HOLD, targets=[hold_id])
        self._gate.check_unbound(caller, Action.RELEASE_HOLD)
        released = self._signature(caller, Action.RELEASE_HOLD)
        _check_reason(reason)
        refused = False
        conflicts = self._trail.conflicts(caller, Action.RELEASE_HOLD, targets=[hold_id])
        with conflicts, self._database.transaction(scope) as connection:
            found = self._register.find(connection, scope, hold_id, lock=True)
            if found is None:
                self._trail.write(
                    connection,
                    caller,
                    AuditEvent.HOLD_RELEASED,
                    targets=[hold_id],
                    outcome=Outcome.NOT_FOUND,
                    detail=HoldReleased(members=0),
                )
            elif found.released is not None:
                raise Conflict(f"the hold {found.name} is released already")
            elif _same(connection, scope, found.placed, released):
                refused = True
            else:
                self._register.release(connection, scope, hold_id, reason=reason, released=released)
                hold = self._get(connection, scope, hold_id)
                self._trail.write(
                    connection,
                    caller,
                    AuditEvent.HOLD_RELEASED,
                    subjects=found.subject_ids,
                    targets=[hold_id],
                    detail=HoldReleased(members=found.members),
                )
                self._journal.released(connection, scope, hold.stored)
        if found is None:
            raise NotFound("there is no such hold")
        if refused:
            self._trail.refuse(caller, Action.RELEASE_HOLD, Reason.SAME_PERSON, targets=[hold_id])
            raise Forbidden("a hold is released by another person than the one who placed it, with a key of their own")
        return hold

    def _signature(self, caller: Caller, action: Action) -> Signature:
        principal = caller.principal
        person = find_person(self._keyring, principal)
        if person is None:
            self._trail.refuse(caller, action, Reason.PERSON)
            raise Forbidden(
                "holds need a known person: use an access token, or a key made by `memvault key create --owner NAME`"
            )
        return Signature(principal.id, PrincipalKind(principal.kind), person)

    def _pinned(self, connection: Connection, scope: Scope, new: NewHold) -> tuple[Sequence[UUID] | None, Node | None]:
        """Return the subjects of a hold, or its filter with surrogates in it. Who is not known yet becomes known."""
        if new.subjects:
            return self._subjects.ensure(connection, scope, new.subjects).all(), None
        return None, None if new.where is None else pin(connection, scope, self._subjects, new.where)

    def _refuse_leaving(
        self, connection: Connection, scope: Scope, subject_ids: Collection[UUID], *, shared_by: Sequence[UUID]
    ) -> None:
        """Return when neither the tenant nor one of the subjects is being erased, nor who shares anything with them.

        A hold on some subjects keeps every row that all of them share: the erasure of another who shares it, whose key
        is gone, would not end. Under the register's lock: who asked to erase them asked for holds first, and has
        committed or waits for this.
        """
        if is_leaving(connection, scope.tenant_id):
            raise Conflict("the tenant is being deleted, for good; nothing can be held any more")
        if self._subjects.lock(connection, subject_ids) != set(subject_ids):
            raise Conflict("one of those who are named is being erased; nothing of them can be held any more")
        erasing = self._subjects.erasing(connection) if shared_by else ()
        if erasing and any(_share(connection, table, shared_by, erasing) for table in (memories_table, _history)):
            raise Conflict(
                "an agent, app, run or user that shares memories with those who are named is being erased; place the "
                "hold once that has ended"
            )

    def _there(self, connection: Connection) -> ColumnElement[bool]:
        """Return the condition that a memory can be held: what is being erased exists for nobody any more."""
        return _not_of(self._subjects.erasing(connection))

    def _get(self, connection: Connection, scope: Scope, hold_id: UUID) -> Hold:
        stored = self._register.find(connection, scope, hold_id)
        assert stored is not None
        return self._told(connection, scope, stored)

    def _told(self, connection: Connection, scope: Scope, stored: StoredHold) -> Hold:
        ids = set(stored.subject_ids) | (pinned_subjects(stored.where) if stored.where is not None else set())
        names = self._subjects.names(connection, scope, ids)
        where = None if stored.where is None else unpinned(stored.where, names)
        subjects = SubjectNames.of(names[one] for one in stored.subject_ids if one in names)
        return Hold(stored, subjects, where)

    def _not_found(
        self, caller: Caller, scope: Scope, event: AuditEvent, targets: Sequence[UUID], detail: HoldPlaced
    ) -> None:
        with self._database.transaction(scope) as connection:
            self._trail.write(connection, caller, event, targets=targets, outcome=Outcome.NOT_FOUND, detail=detail)


def _same(connection: Connection, scope: Scope, placed: Signature, released: Signature) -> bool:
    return placed.person_id == released.person_id or are_related(
        connection, scope.tenant_id, placed.principal_id, released.principal_id
    )


def _not_of(subject_ids: Sequence[UUID], table: Any = memories_table) -> ColumnElement[bool]:
    if not subject_ids:
        return true()
    ids, its = list(subject_ids), table.c
    columns = (its.user_id, its.agent_id, its.app_id, its.run_id)
    return and_(*(or_(column.is_(None), not_(one_of(column, ids))) for column in columns))


def _share(connection: Connection, table: Any, together: Sequence[UUID], erasing: Sequence[UUID]) -> bool:
    """Tell whether there is a row of all of some subjects that is one of the others' too."""
    every = and_(*(belongs_to(one, table) for one in together))
    return (
        connection.execute(select(table.c.id).where(every, not_(_not_of(erasing, table))).limit(1)).first() is not None
    )


def _check(new: NewHold) -> None:
    if not _NAME.fullmatch(new.name):
        raise InvalidInput(
            "name: 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit at both ends; it is shown to whom the hold "
            "refuses, so name no person in it"
        )
    _check_reason(new.reason)
    if (bool(new.subjects) + (new.where is not None) + bool(new.memory_ids)) != 1:
        raise InvalidInput(
            "say what the hold covers, in one way: user_id, agent_id, app_id and run_id, or memory_ids, or filters"
        )
    if new.where == EVERYTHING:
        raise InvalidInput("filters: is empty, which would hold everything; name what is to be held")
    check_names(new.subjects)
    if len(new.memory_ids) > _MOST_IDS:
        raise InvalidInput(f"memory_ids: {_MOST_IDS} at most")


def _check_reason(reason: str) -> None:
    check_characters(reason, "reason")
    if not reason.strip() or len(reason) > _REASON_CHARS:
        raise InvalidInput(f"reason: 1 to {_REASON_CHARS} characters")


__all__ = ["Hold", "Holds", "NewHold"]
