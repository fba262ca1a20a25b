"""Imports: memories with their history come in under their own ids and times, in batches that stand for themselves.

What is imported is checked as a whole first, so that a source with a mistake leaves nothing half done. An id that the
tenant has is passed over: a killed import is run again and goes on, without duplicates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID, uuid5

from sqlalchemy import Connection

from service import clock
from service.audit.events import AuditEvent
from service.audit.moves import ImportSource, MemoriesImported
from service.errors import InvalidInput, MemvaultError, QuotaExceeded
from service.filters.metadata_limits import validate_metadata
from service.memories.limits import check_categories, check_characters, check_names, check_text
from service.memories.provenance import CONNECTOR
from service.memories.stores import Stores
from service.portability.records import Incoming, IncomingHistory, IncomingMemory, IncomingSubject, Placed, Unreadable
from service.records import Change, SubjectNames
from service.scope import Action, Caller, Scope, SubjectKind
from service.storage.arriving import Arrival, Arriving, ArrivingHistory
from service.storage.stored import IndexEntry, StoredMemory, searchable
from service.tenants.subjects import SubjectIds, check_new_name

#: Things that are embedded together and written in one transaction.
_BATCH: Final = 100
#: Memories that get another place in one transaction.
_MOVED_AT_ONCE: Final = 500
#: Clocks differ: so much later than now is not yet the future.
_SKEW: Final = timedelta(minutes=5)
_REFUSALS_KEPT: Final = 100
_CONNECTOR_CHARS: Final = 255
#: Far below what the record counts up to, and below what the outbox takes for the version of what is gone.
_LAST_VERSION: Final = 2**31
_T = TypeVar("_T")

#: Opens the source anew: it is read twice, first to be checked.
Source = Callable[[], Iterable[Placed]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something in the source that cannot be imported."""

    where: str
    why: str


@dataclass(slots=True)
class Imported:
    """What an import did, or would do. `known` were there already, by their ids."""

    import_id: UUID
    dry_run: bool
    memories: int = 0
    known: int = 0
    history: int = 0
    subjects: int = 0
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)


class Applies(Protocol):
    """What brings committed memories into the index, at once or later."""

    def apply(self, scope: Scope, entries: Sequence[IndexEntry]) -> None:
        """Bring them in, or leave that to the outbox."""

    def catch_up(self) -> None:
        """See to it that what the outbox tells of is done soon."""


class Imports:
    """What comes into the installation from elsewhere."""

    def __init__(self, stores: Stores, indexing: Applies) -> None:
        self._stores = stores
        self._indexing = indexing
        self._arriving = Arriving(stores.keyring, stores.record)

    def run(
        self,
        caller: Caller,
        scope: Scope,
        source: Source,
        *,
        origin: ImportSource,
        user: str | None = None,
        dry_run: bool = False,
        skip_refused: bool = False,
        progress: Callable[[str, int], None] = lambda stage, done: None,
    ) -> Imported:
        """Import a source. With `user` everything is that user's, whoever it was before.

        In the end memories stand in their lines by their times, then ids, whatever the order of the source. `progress`
        is told the stage (`check` or `import`) and how many things are done.

        Raises:
            InvalidInput: when something in the source is refused, unless `skip_refused`; nothing is imported then.
            Forbidden: when a key that is bound to users imports for another.
            QuotaExceeded: when the tenant has no room for a batch; those before it are stored, and known the next time.
            Unauthenticated: the same, once the tenant, the key or the token has ended; the trail tells of it.
        """
        self._stores.gate.check(caller, Action.IMPORT_MEMORIES)
        report = Imported(clock.new_id(), dry_run)
        latest = clock.now() + _SKEW
        for number, placed in enumerate(_of(source(), user), 1):
            self._check(caller, placed, latest, report)
            progress("check", number)
        if report.refused and not skip_refused and not dry_run:
            first = report.refusals[0]
            raise InvalidInput(
                f"{report.refused} refused, the first at {first.where}: {first.why}. Nothing was imported"
            )
        done, lines = 0, set[int]()
        for batch in _batched(_of(source(), user), _BATCH):
            good = [placed for placed in batch if self._refused(caller, placed, latest) is None]
            try:
                lines |= self._import(caller, scope, [placed.what for placed in good], origin, report)
            except QuotaExceeded as error:
                self._stores.quotas.refused(caller, error)
                self._line_up(caller, scope, lines)
                raise
            done += len(batch)
            progress("import", done)
        self._line_up(caller, scope, lines)
        return report

    def _line_up(self, caller: Caller, scope: Scope, lines: set[int]) -> None:
        """Put the lines that an import touched in order, also those that an earlier one left before their end."""
        standing = self._stores.standing
        moved = False
        for some in _batched(sorted(lines), _BATCH):
            with standing.transaction(caller, scope, Action.IMPORT_MEMORIES) as connection:
                places = [one for line in some for one in self._arriving.misplaced(connection, line)]
            for part in _batched(places, _MOVED_AT_ONCE):
                with standing.transaction(caller, scope, Action.IMPORT_MEMORIES) as connection:
                    self._arriving.move(connection, scope, part)
                moved = True
        if moved:
            self._indexing.catch_up()

    def _check(self, caller: Caller, placed: Placed, latest: datetime, report: Imported) -> None:
        why = self._refused(caller, placed, latest)
        if why is None:
            return
        report.refused += 1
        if len(report.refusals) < _REFUSALS_KEPT:
            report.refusals.append(Refusal(placed.where, why))

    def _refused(self, caller: Caller, placed: Placed, latest: datetime) -> str | None:
        what = placed.what
        try:
            if isinstance(what, IncomingSubject):
                names = SubjectNames(**{f"{what.kind.value}_id": what.name})
                _check_names(names)
                self._check_user(caller, names)
                return None
            if not what.subjects:
                return "names no user, agent, app or run; give one with --user"
            _check_names(what.subjects)
            self._check_user(caller, what.subjects)
            steps = [what] if isinstance(what, IncomingHistory) else list(what.history)
            if isinstance(what, IncomingMemory):
                self._check_memory(what)
                _check_connector(what, caller.principal.connector)
            for moment in [one for thing in (what, *steps) for one in (thing.created_at, thing.updated_at)]:
                if moment > latest:
                    return "has a time in the future"
        except MemvaultError as error:
            return error.detail
        return None

    def _check_memory(self, memory: IncomingMemory) -> None:
        check_text(memory.text, self._stores.settings.limits, "text")
        validate_metadata(dict(memory.metadata))
        check_categories(memory.categories)
        if memory.actor is not None:
            check_names(SubjectNames(agent_id=memory.actor))
        if memory.role is not None:
            check_characters(memory.role, "role")
            if len(memory.role) > 64:
                raise InvalidInput("role: must have 64 characters at most")
        if not 1 <= memory.version <= _LAST_VERSION:
            raise InvalidInput(f"version: must be from 1 to {_LAST_VERSION}")

    def _check_user(self, caller: Caller, names: SubjectNames) -> None:
        users = caller.principal.users
        if users is not None and names.user_id not in users:
            raise InvalidInput("this key is bound to a user: what it imports must be that user's")

    def _import(
        self, caller: Caller, scope: Scope, batch: Sequence[Incoming], origin: ImportSource, report: Imported
    ) -> set[int]:
        """Write what is new of a batch; return the lines that its memories stand in, those that were there too."""
        stores = self._stores
        memories = [one for one in batch if isinstance(one, IncomingMemory)]
        with stores.standing.transaction(caller, scope, Action.IMPORT_MEMORIES) as connection:
            known = self._arriving.known(connection, [one.id for one in memories])
            new = [one for one in memories if one.id not in known]
            if report.dry_run:
                self._count(batch, new, known, report)
                # It tells which ids the tenant has.
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.MEMORIES_IMPORTED,
                    targets=[report.import_id],
                    detail=MemoriesImported(source=origin, imported=0, known=len(known), history=0),
                )
                return set()
        embedder = stores.embedder
        vectors = list(embedder.embed_documents([searchable(one.text, one.actor) for one in new])) if new else []
        tokenizer = stores.tokenizer(scope)
        with stores.standing.transaction(caller, scope, Action.IMPORT_MEMORIES) as connection:
            arrivals = []
            for memory, vector in zip(new, vectors, strict=True):
                ids = stores.subjects.ensure(connection, scope, memory.subjects)
                stored = _stored(memory, ids, caller, report.import_id)
                tokens = tokenizer.row_tokens(stored.metadata, stored.categories, stored.actor)
                past = [_step(step) for step in memory.history or [_added(memory)]]
                arrivals.append(Arrival(stored, _content(memory, origin), vector, tokens, past, memory.holding))
            entries, lengths = self._arriving.insert(connection, scope, arrivals, embedder=embedder.name)
            if entries:
                stores.quotas.check_room(connection, scope)
            owners = {one for entry in entries for one in entry.memory.subject_ids()}
            stores.announcer.announce(connection, scope, Change.ADD, [entry.memory.id for entry in entries], owners)
            steps = self._insert_steps(connection, scope, batch)
            subjects = self._insert_subjects(connection, scope, batch)
            there = len(memories) - len(entries)
            self._tell(connection, caller, entries, origin, report, known=there, lengths=lengths, steps=steps)
            # A key that is bound to users moves nothing of another's, though it may name an id of theirs.
            users = stores.bound_users(connection, scope)
            lines = self._arriving.lines(connection, [one.id for one in memories], users=users)
        self._indexing.apply(scope, entries)
        report.memories += len(entries)
        report.known += there
        report.history += steps + sum(lengths.values())
        report.subjects += subjects
        return lines

    def _tell(
        self,
        connection: Connection,
        caller: Caller,
        entries: Sequence[IndexEntry],
        origin: ImportSource,
        report: Imported,
        *,
        known: int,
        lengths: Mapping[UUID, int],
        steps: int,
    ) -> None:
        """Write a row for memories that are alike, so that the trail says whose each is, and one for all the rest."""
        groups: dict[tuple[tuple[UUID, ...], date | None], list[UUID]] = defaultdict(list)
        for entry in entries:
            groups[tuple(entry.memory.subject_ids()), entry.memory.expires_on].append(entry.memory.id)
        rows = [
            (
                subjects,
                ids,
                MemoriesImported(
                    source=origin,
                    imported=len(ids),
                    known=0,
                    history=sum(lengths[one] for one in ids),
                    alike=True,
                    expires_on=expires_on,
                ),
            )
            for (subjects, expires_on), ids in groups.items()
        ]
        if known or steps or not rows:
            rows.append(((), [], MemoriesImported(source=origin, imported=0, known=known, history=steps)))
        for subjects, ids, detail in rows:
            self._stores.trail.write(
                connection,
                caller,
                AuditEvent.MEMORIES_IMPORTED,
                subjects=subjects,
                targets=[report.import_id],
                results=ids,
                detail=detail,
            )

    @staticmethod
    def _count(batch: Sequence[Incoming], new: Sequence[IncomingMemory], known: set[UUID], report: Imported) -> None:
        report.memories += len(new)
        report.known += len(known)
        report.history += sum(max(1, len(one.history)) for one in new)
        report.history += sum(isinstance(one, IncomingHistory) for one in batch)
        report.subjects += sum(isinstance(one, IncomingSubject) for one in batch)

    def _insert_steps(self, connection: Connection, scope: Scope, batch: Sequence[Incoming]) -> int:
        lone = [one for one in batch if isinstance(one, IncomingHistory)]
        # What is there has its history, which no line beside it may add to.
        present = self._arriving.known(connection, [one.memory_id for one in lone])
        steps = []
        for step in lone:
            if step.memory_id not in present:
                ids = self._stores.subjects.ensure(connection, scope, step.subjects)
                columns = {"user_id": ids.user_id, "agent_id": ids.agent_id, "app_id": ids.app_id, "run_id": ids.run_id}
                steps.append((columns, _step(step)))
        return self._arriving.insert_history(connection, scope, steps)

    def _insert_subjects(self, connection: Connection, scope: Scope, batch: Sequence[Incoming]) -> int:
        subjects = [one for one in batch if isinstance(one, IncomingSubject)]
        for subject in subjects:
            names = SubjectNames(**{f"{subject.kind.value}_id": subject.name})
            ids = self._stores.subjects.ensure(connection, scope, names)
            if subject.created_at is not None:
                self._stores.subjects.date_back(connection, ids.owner, subject.created_at)
        return len(subjects)


def _check_connector(memory: IncomingMemory, own: str | None) -> None:
    """Refuse a connector that is no name, and with a key that is bound to one any other."""
    came_through = memory.more.get(CONNECTOR)
    if came_through is not None:
        if not isinstance(came_through, str) or not 1 <= len(came_through) <= _CONNECTOR_CHARS:
            raise InvalidInput(f"connector: must be a string of 1 to {_CONNECTOR_CHARS} characters, or null")
        check_characters(came_through, "connector")
    if own is not None and memory.metadata.get(CONNECTOR) != own:
        raise InvalidInput(
            "metadata.connector: this key is bound to a connector, and imports only what carries its name"
        )
    if own is not None and came_through not in (own, None):
        raise InvalidInput("connector: this key is bound to a connector, and imports nothing that came through another")


def _check_names(names: SubjectNames) -> None:
    check_names(names)
    for kind, name in names.items():
        check_new_name(kind, name)


def _of(source: Iterable[Placed], user: str | None) -> Iterator[Placed]:
    """Yield what is to be imported, as this user's if one is given: then no other user comes in."""
    for placed in source:
        what = placed.what
        if user is None:
            yield placed
        elif not isinstance(what, IncomingSubject):
            yield Placed(placed.where, replace(what, subjects=replace(what.subjects, user_id=user)))
        elif what.kind is not SubjectKind.USER:
            yield placed


def _stored(memory: IncomingMemory, ids: SubjectIds, caller: Caller, import_id: UUID) -> StoredMemory:
    return StoredMemory(
        id=memory.id,
        version=memory.version,
        user_id=ids.user_id,
        agent_id=ids.agent_id,
        app_id=ids.app_id,
        run_id=ids.run_id,
        text=memory.text,
        metadata=memory.metadata,
        categories=memory.categories,
        actor=memory.actor,
        role=memory.role,
        inferred=memory.inferred,
        created_at=memory.created_at,
        updated_at=memory.updated_at,
        expires_on=memory.expires_on,
        event_id=import_id,
        principal_id=caller.principal.id,
        linked_ids=memory.links,
        supersedes=memory.supersedes,
    )


def _content(memory: IncomingMemory, origin: ImportSource) -> dict[str, Any]:
    return {
        **memory.more,
        "imported_from": origin.value,
        "text": memory.text,
        "metadata": memory.metadata,
        "categories": list(memory.categories),
        "actor": memory.actor,
        "role": memory.role,
        "inferred": memory.inferred,
        "links": [str(one) for one in memory.links],
        **({"supersedes": [str(one) for one in memory.supersedes]} if memory.supersedes else {}),
    }


def _step(step: IncomingHistory) -> ArrivingHistory:
    return ArrivingHistory(step.id, step.memory_id, step.change, step.content, step.created_at, step.updated_at)


def _added(memory: IncomingMemory) -> IncomingHistory:
    """Return the one step of a memory whose source tells nothing of its past."""
    content = {"old": None, "new": memory.text, "metadata": dict(memory.metadata)}
    return IncomingHistory(
        uuid5(memory.id, "imported"), memory.id, Change.ADD, content, memory.created_at, memory.created_at
    )


def _batched(things: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(things)
    while batch := list(islice(iterator, size)):
        yield batch


__all__ = ["Imported", "Imports", "Refusal", "Source", "Unreadable"]
