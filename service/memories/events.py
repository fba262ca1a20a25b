"""Events: what happened to each add, written with its effect and read by whoever asked for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    String,
    and_,
    any_,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from service import clock
from service.audit.details import EventsListed
from service.audit.events import AuditEvent, Outcome
from service.errors import NotFound
from service.memories.stores import Stores
from service.memories.tables import EventRow, IdempotencyRow
from service.queue.tasks import Queue, forget_jobs
from service.records import Change, Event, EventResult, EventStatus, Page, SubjectNames
from service.scope import Action, Caller, Scope
from service.storage.pipelining import MAY_WAIT
from service.storage.record import one_of
from service.storage.stored import StoredMemory
from service.storage.tables import MessageRow

_events: Final[Any] = EventRow.__table__  # type: ignore[attr-defined]
_idempotency: Final[Any] = IdempotencyRow.__table__  # type: ignore[attr-defined]
_messages: Final[Any] = MessageRow.__table__  # type: ignore[attr-defined]
#: The task that extracts the memories of one event.
EXTRACT: Final = "extract"
_UNFINISHED: Final = (EventStatus.PENDING.value, EventStatus.RUNNING.value)


@dataclass(frozen=True, slots=True)
class Which:
    """Which events to list: in one of these states, of one of these kinds, begun within this span (both ends in it)."""

    statuses: Collection[EventStatus] = ()
    kinds: Collection[str] = ()
    since: datetime | None = None
    until: datetime | None = None

    def clauses(self) -> list[Any]:
        """Return the conditions on the rows."""
        e = _events.c
        asked = [
            e.status.in_([one.value for one in self.statuses]) if self.statuses else None,
            e.kind.in_(list(self.kinds)) if self.kinds else None,
            e.created_at >= self.since if self.since is not None else None,
            e.created_at <= self.until if self.until is not None else None,
        ]
        return [one for one in asked if one is not None]


#: No condition at all.
_ANY: Final = Which()


class Events:
    """Reads events. A caller sees those of its tenant; one that is bound to users, those of its users."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def get(self, caller: Caller, scope: Scope, event_id: UUID) -> Event:
        """Return an event with its results, the texts read from the record as they are now.

        Raises:
            NotFound: when there is none within the caller's scope.
        """
        stores = self._stores
        stores.gate.check(caller, Action.GET_EVENT, targets=[event_id])
        with stores.database.transaction(scope) as connection:
            query = select(_events).where(_events.c.id == event_id, *self._reach(connection, scope))
            row = connection.execute(query).first()
            outcome = Outcome.DONE if row else Outcome.NOT_FOUND
            found = None if row is None else self._presented(connection, scope, [row])[0]
            stores.trail.write(
                connection,
                caller,
                AuditEvent.EVENT_READ,
                subjects=row.subject_ids if row else (),
                targets=[event_id],
                results=_shown([found] if found else []),
                outcome=outcome,
            )
        if found is None:
            raise NotFound("there is no such event")
        return found

    def list(self, caller: Caller, scope: Scope, *, page: int, size: int, which: Which = _ANY) -> Page[Event]:
        """Return one page of events, the newest first."""
        stores = self._stores
        stores.gate.check(caller, Action.LIST_EVENTS)
        with stores.database.transaction(scope) as connection:
            reach = [*self._reach(connection, scope), *which.clauses()]
            total = connection.execute(select(func.count()).select_from(_events).where(*reach)).scalar_one()
            query = select(_events).where(*reach).order_by(_events.c.created_at.desc(), _events.c.id.desc())
            rows = connection.execute(query.offset((page - 1) * size).limit(size)).all()
            events = self._presented(connection, scope, rows)
            stores.trail.write(
                connection,
                caller,
                AuditEvent.EVENTS_LISTED,
                targets=[event.id for event in events],
                results=_shown(events),
                detail=EventsListed(page=page, total=int(total)),
            )
        return Page(events, int(total), page, size)

    def read(self, connection: Connection, scope: Scope, event_id: UUID) -> Event:
        """Return an event inside the caller's own transaction, which has checked and audited."""
        row = connection.execute(select(_events).where(_events.c.id == event_id)).one()
        return self._presented(connection, scope, [row])[0]

    def _reach(self, connection: Connection, scope: Scope) -> Sequence[Any]:
        users = self._stores.bound_users(connection, scope)
        return [] if users is None else [_events.c.subject_ids.overlap(list(users))]

    def _presented(self, connection: Connection, scope: Scope, rows: Sequence[Any]) -> Sequence[Event]:
        stores = self._stores
        ids = {UUID(result["id"]) for row in rows for result in row.results}
        # An id may since have come to be another user's, by an import.
        users = stores.bound_users(connection, scope)
        found = stores.record.find(connection, scope, ids, users=users, on=clock.today())
        memories = {memory.id: memory for memory in stores.presented(connection, scope, list(found.values()))}
        named = stores.subject_names(connection, scope, [row.subject_ids for row in rows])
        events = []
        for row, subjects in zip(rows, named, strict=True):
            results = []
            for result in row.results:
                memory = memories.get(UUID(result["id"]))
                results.append(
                    EventResult(
                        memory_id=UUID(result["id"]),
                        change=Change(result["event"]),
                        text=memory.text if memory else None,
                        subjects=memory.subjects if memory else subjects,
                        actor=memory.actor if memory else None,
                        role=memory.role if memory else None,
                    )
                )
            events.append(_event(row, results))
        return events


def start_event(
    connection: Connection,
    caller: Caller,
    *,
    event_id: UUID,
    kind: str,
    status: EventStatus,
    subject_ids: Sequence[UUID],
    payload: bytes | None = None,
    results: Sequence[tuple[UUID, Change]] = (),
    notes: dict[str, Any] | None = None,
    may_wait: bool = False,
) -> EventRow:
    """Write a new event and return its row. With `may_wait` it goes with the next statement or the commit."""
    moment = clock.now()
    row = EventRow(
        tenant_id=caller.principal.tenant_id,
        id=event_id,
        kind=kind,
        status=status.value,
        owner_id=subject_ids[0],
        subject_ids=list(subject_ids),
        principal_id=caller.principal.id,
        principal_kind=caller.principal.kind.value,
        acting_id=caller.acting,
        payload=payload,
        results=_stored(results),
        notes=notes or {},
        attempts=0,
        request_id=caller.request_id,
        client=caller.client[:200],
        face=caller.face,
        created_at=moment,
        updated_at=moment,
        started_at=moment if status.is_final else None,
        completed_at=moment if status.is_final else None,
    )
    connection.execute(insert(_events), [row.model_dump()], execution_options=MAY_WAIT if may_wait else {})
    return row


def as_told(
    row: EventRow, results: Sequence[tuple[UUID, Change]], memories: Sequence[StoredMemory], subjects: SubjectNames
) -> Event:
    """Return a new event as its caller sees it, without reading back what was just written."""
    told = [
        EventResult(memory_id, change, memory.text, subjects, memory.actor, memory.role)
        if change is not Change.QUARANTINED
        else EventResult(memory_id, change, None, subjects)
        for (memory_id, change), memory in zip(results, memories, strict=True)
    ]
    return _event(row, told)


def lock_event(connection: Connection, event_id: UUID) -> Any | None:
    """Return an event's row, locked until this transaction ends, or None."""
    return connection.execute(select(_events).where(_events.c.id == event_id).with_for_update()).first()


def move_event(
    connection: Connection,
    event_id: UUID,
    status: EventStatus,
    *,
    code: str | None = None,
    reason: str | None = None,
    attempts: int | None = None,
    results: Sequence[tuple[UUID, Change]] | None = None,
    notes: dict[str, Any] | None = None,
) -> None:
    """Move an event to another state. A final one loses its payload: the request is not needed any more.

    One that failed gives up its idempotency key: the same request is a new add then, and may succeed.
    """
    moment = clock.now()
    values: dict[str, Any] = {"status": status.value, "code": code, "reason": reason, "updated_at": moment}
    if attempts is not None:
        values["attempts"] = attempts
    if results is not None:
        values["results"] = _stored(results)
    if notes is not None:
        values["notes"] = notes
    if status is EventStatus.RUNNING:
        values["started_at"] = func.coalesce(_events.c.started_at, moment)
    if status.is_final:
        values |= {"payload": None, "completed_at": moment}
    connection.execute(update(_events).where(_events.c.id == event_id).values(**values))
    if status is EventStatus.FAILED:
        connection.execute(delete(_idempotency).where(_idempotency.c.event_id == event_id))


def settle_results(
    connection: Connection, settled: Mapping[UUID, tuple[UUID, Change]], *, owner_ids: Iterable[UUID]
) -> None:
    """Tell in each event of memories that waited for a reviewer what became of them, and which ids they have now.

    Several adds that say the same wait as one memory of the same owner. Call it once they wait no more: an add that
    joined them meanwhile has ended by then, and is told too.
    """
    if not settled:
        return
    told = {
        (str(one), Change.QUARANTINED.value): {"id": str(now_id), "event": change.value}
        for one, (now_id, change) in settled.items()
    }
    result = func.jsonb_array_elements(_events.c.results, type_=JSONB).column_valued("result")
    ids = literal([str(one) for one in settled], ARRAY(String))
    waited = select(result).where(result["event"].astext == Change.QUARANTINED.value, result["id"].astext == any_(ids))
    query = (
        select(_events.c.id, _events.c.results)
        .where(one_of(_events.c.owner_id, list(set(owner_ids))), waited.exists())
        # In one order, so that two who decide on memories of the same events never wait for each other.
        .order_by(_events.c.id)
        .with_for_update()
    )
    for row in connection.execute(query).all():
        results = [told.get((one["id"], one["event"]), one) for one in row.results]
        connection.execute(
            update(_events).where(_events.c.id == row.id).values(results=results, updated_at=clock.now())
        )


def settle_unapproved(connection: Connection, owners: Mapping[UUID, UUID]) -> None:
    """Tell in their events that nobody approved what waited under these ids, each with its owner, and that it left."""
    settle_results(connection, {one: (one, Change.REJECTED) for one in owners}, owner_ids=owners.values())


def cancel_events(connection: Connection, subject_ids: Sequence[UUID], *, code: str, reason: str) -> int:
    """Cancel every unfinished event of these subjects (all of them together) and return how many.

    It waits for commits that are under way, so that a caller that deletes afterwards sees what they wrote.
    """
    theirs = _events.c.subject_ids.contains(list(subject_ids))
    forget_jobs(connection, EXTRACT, "event_id", select(_events.c.id.cast(String)).where(theirs))
    return _cancel(connection, theirs, code=code, reason=reason)


def cancel_these_events(connection: Connection, event_ids: Sequence[UUID], *, code: str, reason: str) -> int:
    """Cancel those of these events that are unfinished and return how many."""
    return _cancel(connection, _events.c.id.in_(list(event_ids)), code=code, reason=reason)


def unfinished_payloads(connection: Connection) -> list[tuple[UUID, UUID, UUID, bytes]]:
    """Return the unfinished events of the tenant, each with its owner, who asked, and its sealed request; locked."""
    query = select(_events.c.id, _events.c.owner_id, _events.c.principal_id, _events.c.payload).where(
        _events.c.status.in_(_UNFINISHED), _events.c.payload.is_not(None)
    )
    return [
        (row.id, row.owner_id, row.principal_id, bytes(row.payload))
        for row in connection.execute(query.with_for_update())
    ]


def said_again(connection: Connection, owner_id: UUID, memory_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """Return when an owner's memories were last added without being new (`NONE`), as far as events are kept."""
    told = func.jsonb_array_elements(_events.c.results).table_valued(column("value", JSONB), name="told")
    result, ids = told.c.value, literal([str(one) for one in memory_ids], ARRAY(String))
    query = (
        select(result["id"].astext.label("memory_id"), func.max(_events.c.created_at))
        .join_from(_events, told, and_(result["event"].astext == Change.NONE.value, result["id"].astext == any_(ids)))
        .where(_events.c.owner_id == owner_id)
        .group_by("memory_id")
    )
    return {UUID(memory_id): moment for memory_id, moment in connection.execute(query)}


def lost_events(older_than: timedelta) -> ColumnElement[bool]:
    """Return the condition that an event is unfinished and has no job, untouched for so long."""
    return and_(
        _events.c.status.in_(_UNFINISHED),
        _events.c.updated_at < clock.now() - older_than,
        ~Queue.has_job(EXTRACT, "event_id", _events.c.id),
    )


def any_lost_events(older_than: timedelta) -> ColumnElement[bool]:
    """Return the condition that the tenant has such an event."""
    return exists().where(lost_events(older_than))


def forget_all_messages(connection: Connection) -> int:
    """Remove every buffered message of the tenant; return how many."""
    return int(connection.execute(delete(_messages)).rowcount)


def count_unfinished(connection: Connection) -> int:
    """Return how many events of the tenant wait or run."""
    query = select(func.count()).select_from(_events).where(_events.c.status.in_(_UNFINISHED))
    return int(connection.execute(query).scalar_one())


def forget_messages(
    connection: Connection, *, event_ids: Sequence[UUID] = (), subject_ids: Sequence[UUID] = ()
) -> None:
    """Remove buffered messages of these events, and those of every event of these subjects together."""
    if event_ids:
        connection.execute(delete(_messages).where(_messages.c.event_id.in_(list(event_ids))))
    if subject_ids:
        of_subjects = select(_events.c.id).where(_events.c.subject_ids.contains(list(subject_ids)))
        connection.execute(delete(_messages).where(_messages.c.event_id.in_(of_subjects)))


def _cancel(connection: Connection, which: ColumnElement[bool], *, code: str, reason: str) -> int:
    moment = clock.now()
    cancelled = connection.execute(
        update(_events)
        .where(_events.c.status.in_(_UNFINISHED), which)
        .values(
            status=EventStatus.CANCELLED.value,
            payload=None,
            code=code,
            reason=reason,
            updated_at=moment,
            completed_at=moment,
        )
    )
    return int(cancelled.rowcount)


def _shown(events: Sequence[Event]) -> list[UUID]:
    """Return the memories whose texts these events show."""
    return list(dict.fromkeys(one.memory_id for event in events for one in event.results if one.text is not None))


def _stored(results: Sequence[tuple[UUID, Change]]) -> list[dict[str, str]]:
    return [{"id": str(memory_id), "event": change.value} for memory_id, change in results]


def _event(row: Any, results: Sequence[EventResult]) -> Event:
    return Event(
        id=row.id,
        kind=row.kind,
        status=EventStatus(row.status),
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        results=tuple(results),
        code=row.code,
        reason=row.reason,
        attempts=row.attempts,
        notes=row.notes,
    )
