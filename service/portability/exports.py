"""Exports of a person or a tenant: asked for, then made from the record while they are read; no copy is kept."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Connection, delete, exists, false, insert, select

from service import clock
from service.audit.events import AuditEvent, Outcome
from service.audit.moves import ExportPart, ExportRead
from service.errors import Conflict, InvalidInput, NotFound, TooLarge
from service.filters.ast import Node, subject_names
from service.filters.build import and_, subjects_filter
from service.filters.evaluate import matches
from service.filters.parse import parse_filter
from service.memories.limits import check_names
from service.memories.stores import Stores, TenantLookup
from service.portability.lines import encoded, ending, header, history_line, memory_line, subject_line
from service.portability.tables import ExportRow
from service.records import Memory, SubjectNames
from service.scope import Action, Caller, Scope, SubjectKind
from service.storage.encryption import Place
from service.storage.filter_sql import compile_sql
from service.storage.keyring import KeyDestroyed, lost_of
from service.storage.leaving import Leaving, LeavingMemory
from service.storage.record import Unreadable, memories_table
from service.storage.stored import Slice
from service.storage.superseding import Link, links_of
from service.storage.together import open_together, seal_together
from service.tenants.quotas import Postponed

_exports: Final[Any] = ExportRow.__table__  # type: ignore[attr-defined]
#: Memories that are read in one transaction, with one audit row.
_BATCH: Final = 200
#: What is read as a whole, since its shape needs all of it at once; the lines of a download have no such bounds.
_MOST_MEMORIES: Final = 20_000
_MOST_CHARS: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an export is of: the subjects that are named, and a filter as it came. Neither: the whole tenant."""

    subjects: SubjectNames = field(default_factory=SubjectNames)
    filters: Any = None
    schema: Any = None
    instructions: str | None = None

    @property
    def where(self) -> Node:
        """The filter.

        Raises:
            InvalidInput: naming what of it cannot be understood.
        """
        return and_(parse_filter(self.filters), subjects_filter(self.subjects))

    @property
    def of_subjects(self) -> bool:
        """Whether it is everything of one subject or of the tenant, so that what was deleted belongs to it."""
        return not self.filters and len(self.subjects.items()) <= 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Some lines of an export, and what to give as `after` to go on behind them; None after the last."""

    lines: Sequence[bytes]
    memories: int
    after: str | None


class Exports:
    """What leaves the installation, in full."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._leaving = Leaving(stores.keyring)

    def request(self, caller: Caller, scope: Scope, wanted: Wanted) -> UUID:
        """Note what is to be exported, and return the id to read it by.

        Who is not known yet becomes known: the request holds the names, and leaves with each of them.

        Raises:
            InvalidInput: for a filter that cannot be understood, or a name that none can have.
            Forbidden: when a key that is bound to users names another.
            Conflict: while one of those named is being erased; for a new user whose id is an account that is linked.
        """
        stores = self._stores
        stores.gate.check(caller, Action.REQUEST_EXPORT)
        where = self._checked(caller, Action.REQUEST_EXPORT, wanted)
        export_id = clock.new_id()
        conflicts = stores.trail.conflicts(caller, Action.REQUEST_EXPORT)
        with conflicts, stores.database.transaction(scope) as connection:
            subject_ids = self._living(connection, scope, where)
            connection.execute(
                insert(_exports).values(
                    tenant_id=scope.tenant_id,
                    id=export_id,
                    principal_id=caller.principal.id,
                    subject_ids=subject_ids,
                    request=self._sealed(scope, export_id, subject_ids, wanted),
                    request_mac=self._mac(scope, wanted),
                    created_at=clock.now(),
                )
            )
            stores.trail.write(
                connection, caller, AuditEvent.EXPORT_REQUESTED, subjects=subject_ids, targets=[export_id]
            )
        return export_id

    def find(self, caller: Caller, scope: Scope, export_id: UUID | None, wanted: Wanted | None = None) -> Wanted:
        """Return what an export is of, by its id, or the newest that was asked for with the same filters.

        Raises:
            InvalidInput: for filters that cannot be understood.
            NotFound: when there is none within the caller's reach; the trail tells of it.
        """
        stores = self._stores
        stores.gate.check(caller, Action.READ_EXPORT, targets=[export_id] if export_id else [])
        query = select(_exports).order_by(_exports.c.created_at.desc()).limit(1)
        if export_id is not None:
            query = query.where(_exports.c.id == export_id)
        else:
            same = wanted or Wanted()
            # What it cannot be asked for with cannot be written down either.
            parse_filter(same.filters)
            query = query.where(_exports.c.request_mac == self._mac(scope, same))
        with stores.database.transaction(scope) as connection:
            if (users := stores.bound_users(connection, scope)) is not None:
                # One credential may act for several users, each as if bound to it.
                query = query.where(
                    _exports.c.principal_id == caller.principal.id, _exports.c.subject_ids.overlap(list(users))
                )
            row = connection.execute(query).first()
            found = None if row is None else self._opened(scope, row)
            if found is None:
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.EXPORT_READ,
                    targets=[export_id] if export_id else [],
                    outcome=Outcome.NOT_FOUND,
                    detail=ExportRead(what=ExportPart.NOTHING, memories=0),
                )
        if found is None:
            raise NotFound("there is no such export; name its id, or the ids and filters that it was asked for with")
        return found

    def any_old(self) -> ColumnElement[bool]:
        """Return the condition that the tenant has a request of an export that `forget_old` removes."""
        return exists(_exports.c.id).where(self._old())

    def forget_old(self, scope: Scope) -> int:
        """Remove the requests that are older than events are kept (`retention.event_days`); return how many."""
        with self._stores.database.transaction(scope) as connection:
            return int(connection.execute(delete(_exports).where(self._old())).rowcount)

    def _old(self) -> ColumnElement[bool]:
        days = self._stores.settings.retention.event_days
        if days is None:
            return false()
        old: ColumnElement[bool] = _exports.c.created_at < clock.now() - timedelta(days=days)
        return old

    def read(self, caller: Caller, scope: Scope, wanted: Wanted, *, after: str | None = None) -> Iterator[Batch]:
        """Yield the export in batches, each read and audited in one transaction before it leaves.

        It goes on behind `after`, which the batch before told. What is changed meanwhile is as it is when it is read.
        Each batch asks again whether the credential stands.

        Raises:
            InvalidInput: for an `after` that is none.
            Unauthenticated: also in the middle, once the tenant, the key or the token has ended; the trail tells of it.
            Forbidden: without `memory:export`; in the middle when the key has lost it.
        """
        self._stores.gate.check(caller, Action.READ_EXPORT)
        where = self._checked(caller, Action.READ_EXPORT, wanted)
        cursor = _Cursor.of(after)
        return self._batches(caller, scope, wanted, where, cursor)

    def memories(
        self,
        caller: Caller,
        scope: Scope,
        wanted: Wanted,
        *,
        begin: Callable[[Connection, Sequence[Memory]], Postponed | None] | None = None,
    ) -> list[Memory]:
        """Return the memories of an export for one that is projected on a schema, the oldest first.

        `begin` counts what is to be done with them, in the transaction that reads them.

        Raises:
            TooLarge: for more than one answer may hold; then nothing leaves.
            TooManyRequests: when that has to wait; then nothing was read.
        """
        stores = self._stores
        stores.gate.check(caller, Action.READ_EXPORT)
        where = self._checked(caller, Action.READ_EXPORT, wanted)
        with stores.database.transaction(scope) as connection:
            lookup = stores.lookup(connection, scope, where)
            found = self._bounded(connection, scope, where, lookup)
            found.sort(key=lambda memory: (memory.created_at, memory.id))
            postponed = None if begin is None else begin(connection, found)
            if postponed is None:
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.EXPORT_READ,
                    subjects=lookup.subject_ids(),
                    results=[memory.id for memory in found],
                    detail=ExportRead(what=ExportPart.MEMORIES, memories=len(found)),
                )
        if postponed is not None:
            raise stores.quotas.too_many_calls(caller, postponed)
        return found

    def _bounded(self, connection: Connection, scope: Scope, where: Node, lookup: TenantLookup) -> list[Memory]:
        """Return the memories that match, in any order, or raise TooLarge as soon as they are too many."""
        stores, on = self._stores, clock.today()
        compiled = compile_sql(where, lookup, memories_table)
        if compiled.exact:
            _, total = stores.record.page(connection, scope, compiled.clause, Slice(0, 0), users=lookup.users, on=on)
            _check_size(total, 0)
        unreadable: Unreadable = {}
        rows = stores.record.stream(
            connection, scope, compiled.clause, users=lookup.users, on=on, unreadable=unreadable
        )
        found: list[Memory] = []
        chars = 0
        while batch := list(islice(rows, _BATCH)):
            for memory in stores.presented(connection, scope, batch):
                if matches(where, memory):
                    found.append(memory)
                    chars += len(memory.text) + len(orjson.dumps(memory.metadata))
            _check_size(len(found), chars)
        lost_of(unreadable)
        return found

    def _batches(
        self, caller: Caller, scope: Scope, wanted: Wanted, where: Node, cursor: _Cursor | None
    ) -> Iterator[Batch]:
        stores, count = self._stores, 0
        at: _Cursor | None = cursor or _Cursor(_Phase.SUBJECTS)
        first: list[dict[str, Any]] = [header(scope.tenant_id, clock.now())]
        while at is not None:
            with stores.standing.transaction(caller, scope, Action.READ_EXPORT) as connection:
                lookup = stores.lookup(connection, scope, where)
                # Short phases share a batch, so that a small export is one, with one audit row.
                lines, memory_ids = first, list[UUID]()
                following: _Cursor | None = at
                first = []
                while following is not None and len(memory_ids) < _BATCH and len(lines) < 4 * _BATCH:
                    more, ids, following = self._next(connection, scope, wanted, where, lookup, following)
                    lines = [*lines, *more]
                    memory_ids += ids
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.EXPORT_READ,
                    subjects=lookup.subject_ids(),
                    results=memory_ids,
                    detail=ExportRead(what=ExportPart.LINES, memories=len(memory_ids)),
                )
            count += len(lines)
            if following is None:
                lines = [*lines, ending(count)]
            told = None if following is None else str(following)
            yield Batch([encoded(line) for line in lines], len(memory_ids), told)
            at = following

    def _next(
        self,
        connection: Connection,
        scope: Scope,
        wanted: Wanted,
        where: Node,
        lookup: TenantLookup,
        at: _Cursor,
    ) -> tuple[list[dict[str, Any]], list[UUID], _Cursor | None]:
        """Return some lines, the memories among them, and where to go on."""
        if at.phase == _Phase.SUBJECTS:
            return self._subjects(connection, scope, wanted, lookup), [], _Cursor(_Phase.MEMORIES)
        if at.phase == _Phase.MEMORIES:
            lines, ids, last = self._memories(connection, scope, where, lookup, at)
            if last is not None:
                return lines, ids, _Cursor(_Phase.MEMORIES, str(last))
            return lines, ids, _Cursor(_Phase.DELETED) if _is_whole(wanted, lookup) else None
        subject_ids = self._whole_subjects(wanted, lookup)
        behind = at.seq
        if behind is None and at.last is not None:
            behind = self._leaving.seq_of(connection, subject_ids, UUID(at.last))
            if behind is None:
                raise InvalidInput("after: what it names is not there any more; begin the export anew")
        steps, seq = self._leaving.history_of_deleted(connection, scope, subject_ids, after=behind or 0, limit=_BATCH)
        named = self._stores.subject_names(connection, scope, [step.subject_ids for step in steps])
        lines = [history_line(step, names) for step, names in zip(steps, named, strict=True) if names]
        return lines, [], None if seq is None else _Cursor(_Phase.DELETED, str(steps[-1].id), seq)

    def _subjects(
        self, connection: Connection, scope: Scope, wanted: Wanted, lookup: TenantLookup
    ) -> list[dict[str, Any]]:
        if not _is_whole(wanted, lookup):
            return []
        found = self._stores.subjects.list(connection, scope, ids=self._whole_subjects(wanted, lookup))
        return [subject_line(one.kind, one.name, one.id, one.created_at) for one in found]

    def _memories(
        self, connection: Connection, scope: Scope, where: Node, lookup: TenantLookup, at: _Cursor
    ) -> tuple[list[dict[str, Any]], list[UUID], UUID | None]:
        compiled = compile_sql(where, lookup, memories_table)
        found, last = self._leaving.memories(
            connection,
            scope,
            compiled.clause,
            users=lookup.users,
            after=None if at.last is None else UUID(at.last),
            limit=_BATCH,
        )
        if not compiled.exact:
            found = self._exactly(connection, scope, where, found)
        history: dict[UUID, list[Any]] = {}
        for step in self._leaving.history(connection, scope, [memory.id for memory in found]):
            history.setdefault(step.memory_id, []).append(step)
        links: dict[UUID, list[Link]] = {}
        for link in links_of(connection, [memory.id for memory in found]):
            for end in (link.older_id, link.newer_id):
                links.setdefault(end, []).append(link)
        lines: list[dict[str, Any]] = []
        ids = []
        named = self._stores.subject_names(connection, scope, [memory.subject_ids for memory in found])
        for memory, names in zip(found, named, strict=True):
            if not names:
                continue
            ids.append(memory.id)
            lines.append(memory_line(memory, names, links.get(memory.id, ())))
            lines += [history_line(step, names) for step in history.get(memory.id, ())]
        return lines, ids, last

    def _exactly(
        self, connection: Connection, scope: Scope, where: Node, found: Sequence[LeavingMemory]
    ) -> list[LeavingMemory]:
        """Return those that meet the parts of a filter that Postgres cannot see."""
        stores = self._stores
        stored = stores.record.find(connection, scope, [one.id for one in found], users=None, on=None)
        presented = stores.presented(connection, scope, list(stored.values()))
        meets = {memory.id for memory in presented if matches(where, memory)}
        return [one for one in found if one.id in meets]

    def _whole_subjects(self, wanted: Wanted, lookup: TenantLookup) -> list[UUID] | None:
        """Return the subjects that are exported whole; None is all of the tenant."""
        if wanted.subjects:
            users = lookup.users
            return [one for one in lookup.subject_ids() if users is None or one in users]
        return None if lookup.users is None else list(lookup.users)

    def _checked(self, caller: Caller, action: Action, wanted: Wanted) -> Node:
        where = wanted.where
        for kind, name in subject_names(where):
            if kind is SubjectKind.USER:
                self._stores.gate.check_user(caller, action, SubjectNames(user_id=name), writing=False)
        return where

    def _living(self, connection: Connection, scope: Scope, where: Node) -> list[UUID]:
        """Return the subjects that a filter names or the scope is bound to; none is erased before this commits."""
        subjects = self._stores.subjects
        named = subject_names(where) | {(SubjectKind.USER, user) for user in scope.users or ()}
        # Again where one was erased by another process, whose name this one remembers.
        for _ in range(2):
            # In one order, so that two requests with the same new names never wait for each other.
            for kind, name in sorted(named):
                names = SubjectNames.of([(kind, name)])
                check_names(names)
                subjects.ensure(connection, scope, names)
            ids = self._stores.lookup(connection, scope, where).subject_ids()
            if not ids or subjects.lock(connection, ids) == set(ids):
                return ids
            subjects.forget_names()
        raise Conflict("one of those named is being erased; try again later")

    def _sealed(self, scope: Scope, export_id: UUID, subject_ids: Sequence[UUID], wanted: Wanted) -> bytes:
        keyring, cipher = self._stores.keyring, self._stores.subjects.tenant_cipher(scope)
        document = orjson.dumps(_document(wanted))
        return seal_together(keyring, cipher, subject_ids, document, _place(scope, export_id))

    def _opened(self, scope: Scope, row: Any) -> Wanted | None:
        """Return what an export is of, None where somebody whom it names is being erased."""
        keyring, cipher = self._stores.keyring, self._stores.subjects.tenant_cipher(scope)
        try:
            opened = open_together(keyring, cipher, row.subject_ids, row.request, _place(scope, row.id))
        except KeyDestroyed:
            return None
        found = orjson.loads(opened)
        return Wanted(SubjectNames(**found["subjects"]), found["filters"], found["schema"], found["instructions"])

    def _mac(self, scope: Scope, wanted: Wanted) -> bytes:
        secret = self._stores.keyring.tenant_secret(scope.tenant_id, "export-requests")
        told = _document(wanted)
        what: dict[str, Any] = {"subjects": told["subjects"], "filters": told["filters"]}
        if scope.users is not None:
            # One credential may act for several users, each as if bound to it.
            what["users"] = sorted(scope.users)
        return hmac.digest(secret, orjson.dumps(what, option=orjson.OPT_SORT_KEYS), hashlib.sha256)


class _Phase:
    """The parts of an export, in their order."""

    SUBJECTS: Final = "subjects"
    MEMORIES: Final = "memories"
    DELETED: Final = "deleted"


@dataclass(frozen=True, slots=True)
class _Cursor:
    """How far an export is: behind a memory, or behind a step of one that is gone.

    `seq` is where that step stands among those of all tenants, which is told to nobody.
    """

    phase: str
    last: str | None = None
    seq: int | None = None

    def __str__(self) -> str:
        return f"{self.phase}:{self.last or ''}"

    @staticmethod
    def of(after: str | None) -> _Cursor | None:
        if after is None:
            return None
        phase, _, last = after.partition(":")
        try:
            if phase in (_Phase.MEMORIES, _Phase.DELETED):
                return _Cursor(phase, str(UUID(last)) if last else None)
        except ValueError:
            pass
        raise InvalidInput("after: must be what the part before it told")


def _check_size(memories: int, chars: int) -> None:
    """Raise TooLarge for more memories, or characters of text and metadata, than one answer may hold."""
    if memories > _MOST_MEMORIES or chars > _MOST_CHARS:
        raise TooLarge(
            f"export: has more than {_MOST_MEMORIES} memories or {_MOST_CHARS} characters, too many for one answer; "
            "read it as JSON lines (GET /v1/exports/{id}/download/), or ask for less of it with filters"
        )


def _is_whole(wanted: Wanted, lookup: TenantLookup) -> bool:
    """Whether everything of some subjects is exported: for a bound principal at most everything of its users."""
    other = bool(wanted.subjects) and wanted.subjects.user_id is None
    return wanted.of_subjects and not (lookup.users is not None and other)


def _document(wanted: Wanted) -> dict[str, Any]:
    names: Mapping[str, Any] = {
        name: getattr(wanted.subjects, name) for name in ("user_id", "agent_id", "app_id", "run_id")
    }
    return {
        "subjects": dict(names),
        "filters": wanted.filters or None,
        "schema": wanted.schema,
        "instructions": wanted.instructions,
    }


def _place(scope: Scope, export_id: UUID) -> Place:
    return Place(scope.tenant_id, "exports", export_id, "request")
