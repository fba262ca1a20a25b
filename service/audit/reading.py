"""Reads the trail: lists, exports, the tail, and what was known at a moment. Each reading leaves a row itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import Connection, select, text, tuple_

from service.audit.details import AuditExported, AuditRead, ExportFormat, Reason, View
from service.audit.encoding import LINE, ORDER
from service.audit.entries import SETTLED, Entry, audit_table, entry_of
from service.audit.events import AuditEvent, Outcome
from service.audit.knowledge import Answer, Known, KnownMemory, known_memories, shown_by
from service.audit.selection import Place, Selection, Snapshot, read_cursor, write_cursor
from service.audit.trail import Trail
from service.audit.uses import trail_reaches_back_to
from service.errors import Forbidden, InvalidInput, NotFound
from service.records import SubjectNames
from service.scope import Action, Caller, Scope, SubjectKind
from service.storage.database import Database
from service.storage.keyring import Keyring

_a: Final[Any] = audit_table.c
_EXPORT_BATCH: Final = 1000

Name = tuple[SubjectKind, str]


class Checks(Protocol):
    """The gate, which stands a floor above."""

    def check(self, caller: Caller, action: Action, *, targets: Iterable[UUID] = ()) -> None:
        """Return if the caller may take the action."""


class Standing(Protocol):
    """What asks again whether a credential stands, two floors above."""

    def transaction(self, caller: Caller, scope: Scope, action: Action) -> AbstractContextManager[Connection]:
        """One transaction of the record, in which the caller may still take the action."""


class Names(Protocol):
    """The subjects of a tenant, which stand a floor above."""

    def find(self, connection: Connection, scope: Scope, names: Iterable[Name]) -> Mapping[Name, UUID]:
        """Return the surrogates of those names that exist."""

    def names(self, connection: Connection, scope: Scope, ids: Iterable[UUID]) -> Mapping[UUID, Name]:
        """Return the names of those surrogates whose key still exists."""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some rows, the cursor of the next ones, and the names of the subjects in them if they were asked for."""

    entries: Sequence[Entry]
    next_cursor: str | None
    names: Mapping[UUID, Name] | None


@dataclass(frozen=True, slots=True)
class Exported:
    """One row of an export: the canonical line (what is hashed and sealed), and the row opened."""

    line: str
    entry: Entry


class Reading:
    """The trail of the caller's tenant, for whoever may read it."""

    def __init__(
        self, database: Database, keyring: Keyring, trail: Trail, gate: Checks, standing: Standing, subjects: Names
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._trail = trail
        self._gate = gate
        self._standing = standing
        self._subjects = subjects

    def page(
        self,
        caller: Caller,
        scope: Scope,
        selection: Selection,
        *,
        size: int,
        cursor: str | None = None,
        newest_first: bool = True,
        names: bool = False,
    ) -> AuditPage:
        """Return one page. With `names` people are named who still exist, which needs the right to read memories too.

        All pages of a walk show what was committed when its first one was read: each row once, and nothing else.

        Raises:
            Forbidden: without `audit:read`, or with a key that is bound to users: the trail is the whole tenant's.
            InvalidInput: for a cursor that this list did not give out for these filters.
        """
        self._check(caller, Action.READ_AUDIT)
        if names:
            self._gate.check(caller, Action.LIST_ENTITIES)
        secret = self._keyring.tenant_secret(scope.tenant_id, "audit-cursor")
        place = None if cursor is None else read_cursor(secret, selection, newest_first=newest_first, cursor=cursor)
        with self._database.transaction(scope) as connection:
            resolved = self._resolved(connection, scope, selection)
            snapshot = _snapshot(connection) if place is None else place.snapshot
            entries: list[Entry] = []
            if resolved is not None:
                entries = _page(connection, scope, resolved, snapshot, size, place, newest_first)
            more = len(entries) > size
            entries = entries[:size]
            named = None
            if names:
                ids = {one for entry in entries for one in (*entry.subject_ids, entry.acting_subject_id) if one}
                named = self._subjects.names(connection, scope, ids)
            self._trail.write(
                connection,
                caller,
                AuditEvent.AUDIT_READ,
                subjects=resolved.subjects if resolved else (),
                detail=AuditRead(view=View.ROWS, filters=selection.filters(), rows=len(entries), names=names),
            )
        following = None
        if more:
            last = Place(entries[-1].at, entries[-1].id, snapshot)
            following = write_cursor(secret, selection, newest_first=newest_first, place=last)
        return AuditPage(entries, following, named)

    def export(
        self, caller: Caller, scope: Scope, selection: Selection, export_format: ExportFormat
    ) -> Iterator[Exported]:
        """Yield every matching row in the order in which rows are sealed; the export is in the trail before it begins.

        Rows of transactions that are still under way are left out; nothing before them is. It reads in short
        transactions of their own, so that a slow reader holds nothing up, and each asks again whether the credential
        stands.

        Raises:
            Unauthenticated: also in the middle, once the tenant, the key or the token has ended; the trail tells of it.
            Forbidden: without `audit:read`, or with a key that is bound to users; in the middle when it lost the right.
        """
        self._check(caller, Action.EXPORT_AUDIT)
        with self._database.transaction(scope) as connection:
            horizon = connection.execute(_HORIZON).scalar_one()
            resolved = self._resolved(connection, scope, selection)
            self._trail.write(
                connection,
                caller,
                AuditEvent.AUDIT_EXPORTED,
                subjects=resolved.subjects if resolved else (),
                detail=AuditExported(format=export_format, filters=selection.filters()),
            )
        return iter(()) if resolved is None else self._exported(caller, scope, resolved, int(horizon))

    def tail(self, caller: Caller, scope: Scope, *, last: int) -> Iterator[Sequence[Entry]]:
        """Yield the last rows, then, each time it is asked, those that have come since: every row once, in order."""
        self._check(caller, Action.READ_AUDIT)
        with self._database.transaction(scope) as connection:
            recent = _in_order(connection, scope, None, last)
            self._trail.write(
                connection, caller, AuditEvent.AUDIT_READ, detail=AuditRead(view=View.TAIL, rows=len(recent))
            )
        return self._following(scope, recent)

    def known(
        self,
        caller: Caller,
        scope: Scope,
        names: SubjectNames,
        subject_ids: Sequence[UUID],
        *,
        at: datetime | None,
        request_id: str | None,
        principal_id: UUID | None = None,
        limit: int,
    ) -> Known:
        """Return which memories of these subjects (all of them together) existed at a moment, from the trail alone.

        The moment is `at`, else that of the request, whose answer is told apart: which memories it was made of. With
        `principal_id` it is a request of that key.

        Raises:
            NotFound: when the tenant has no such subject or the trail no such answer.
            InvalidInput: when several keys sent the id of the request and none of them is named.
        """
        self._check(caller, Action.READ_AUDIT)
        selection = Selection(
            names=names, subjects=tuple(subject_ids), request_id=request_id, principal_id=principal_id, until=at
        )
        with self._database.transaction(scope) as connection:
            resolved = self._resolved(connection, scope, selection)
            answers: Sequence[Answer] = ()
            if request_id is not None:
                answers = shown_by(connection, scope, request_id, principal_id=principal_id)
            answered = answers[0] if len(answers) == 1 else None
            moment = at or (answered.at if answered else None)
            found = resolved is not None and moment is not None and (request_id is None or answered is not None)
            memories: list[KnownMemory] = []
            if found and resolved is not None and moment is not None and resolved.subjects:
                memories = known_memories(connection, scope, resolved.subjects, moment)
            trail_from = trail_reaches_back_to(connection, scope)
            self._trail.write(
                connection,
                caller,
                AuditEvent.AUDIT_READ,
                outcome=Outcome.DONE if found else Outcome.NOT_FOUND,
                subjects=resolved.subjects if resolved else (),
                detail=AuditRead(view=View.KNOWN, filters=selection.filters(), rows=min(len(memories), limit)),
            )
        if resolved is None:
            raise NotFound("there is no such subject; one that was erased is asked for by its id, as subject_id")
        if len(answers) > 1:
            keys = ", ".join(str(one.principal_id) for one in answers if one.principal_id is not None)
            raise InvalidInput(f"request_id: was sent by several callers; give principal_id, one of {keys}")
        if not found or moment is None:
            raise NotFound("the trail has no answer to that request")
        return Known(
            at=moment,
            subject_ids=resolved.subjects,
            memories=memories[:limit],
            total=len(memories),
            shown=answered.memory_ids if answered else (),
            trail_from=trail_from,
        )

    def _check(self, caller: Caller, action: Action) -> None:
        self._gate.check(caller, action)
        if caller.principal.users is not None:
            self._trail.refuse(caller, action, Reason.BOUND)
            raise Forbidden("this key is bound to users, and the trail is the whole tenant's: use a key that is not")

    def _resolved(self, connection: Connection, scope: Scope, selection: Selection) -> Selection | None:
        """Return the selection with its names as surrogates, or None when one of them does not exist."""
        wanted = selection.names.items()
        found = self._subjects.find(connection, scope, wanted) if wanted else {}
        if len(found) < len(wanted):
            return None
        return replace(selection, subjects=(*selection.subjects, *(found[name] for name in wanted)))

    def _exported(self, caller: Caller, scope: Scope, selection: Selection, horizon: int) -> Iterator[Exported]:
        place = (-1, -1)
        while True:
            query = (
                select(audit_table, text(f"{LINE} AS line"))
                .where(
                    _a.tenant_id == scope.tenant_id,
                    tuple_(_a.xid, _a.seq) > place,
                    _a.xid < horizon,
                    *selection.clauses(),
                )
                .order_by(text(ORDER))
                .limit(_EXPORT_BATCH)
            )
            with self._standing.transaction(caller, scope, Action.EXPORT_AUDIT) as connection:
                rows = connection.execute(query).all()
            for row in rows:
                yield Exported(row.line, entry_of(row))
            if len(rows) < _EXPORT_BATCH:
                return
            place = (rows[-1].xid, rows[-1].seq)

    def _following(self, scope: Scope, recent: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        place = (recent[-1].xid, recent[-1].seq) if recent else (-1, -1)
        yield recent
        while True:
            with self._database.transaction(scope) as connection:
                new = _in_order(connection, scope, place, _EXPORT_BATCH)
            if new:
                place = (new[-1].xid, new[-1].seq)
            yield new


_HORIZON: Final = text("SELECT public.audit_order(pg_snapshot_xmin(pg_current_snapshot()))")
_SNAPSHOT: Final = text(
    "SELECT public.audit_order(pg_snapshot_xmax(now)) AS end,"
    " ARRAY(SELECT public.audit_order(xid) FROM pg_snapshot_xip(now) AS xid) AS under_way"
    " FROM pg_current_snapshot() AS now"
)


def _snapshot(connection: Connection) -> Snapshot:
    """Return what is committed now.

    The horizon of an export would leave out too much here: all that is younger than the oldest transaction.
    """
    row = connection.execute(_SNAPSHOT).one()
    return Snapshot(row.end, tuple(row.under_way))


def _page(
    connection: Connection,
    scope: Scope,
    selection: Selection,
    snapshot: Snapshot,
    size: int,
    place: Place | None,
    newest_first: bool,
) -> list[Entry]:
    """Return the rows of a page and one more, if there is one."""
    query = select(audit_table).where(_a.tenant_id == scope.tenant_id, *snapshot.clauses(), *selection.clauses())
    if place is not None:
        here, there = tuple_(_a.at, _a.id), (place.at, place.row_id)
        query = query.where(here < there if newest_first else here > there)
    order = (_a.at.desc(), _a.id.desc()) if newest_first else (_a.at, _a.id)
    return [entry_of(row) for row in connection.execute(query.order_by(*order).limit(size + 1))]


def _in_order(connection: Connection, scope: Scope, place: tuple[int, int] | None, size: int) -> list[Entry]:
    """Return the settled rows behind a place, or the last ones, the oldest first."""
    query = select(audit_table).where(_a.tenant_id == scope.tenant_id, text(SETTLED)).limit(size)
    if place is None:
        rows = connection.execute(query.order_by(_a.xid.desc(), _a.seq.desc())).all()
        return [entry_of(row) for row in reversed(rows)]
    query = query.where(tuple_(_a.xid, _a.seq) > place).order_by(_a.xid, _a.seq)
    return [entry_of(row) for row in connection.execute(query)]
