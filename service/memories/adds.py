"""Adding memories: verbatim ones at once, extracted ones through the queue, each with an event that tells the end."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Connection, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from service import clock
from service.audit.details import EventRead, MemoryAdded
from service.audit.events import AuditEvent
from service.errors import (
    Conflict,
    ExtractionUnavailable,
    IdempotencyConflict,
    InvalidInput,
    QuotaExceeded,
    RecordBusy,
    TooManyWaiting,
)
from service.filters.metadata_limits import validate_metadata
from service.memories.events import EXTRACT, Events, as_told, count_unfinished, start_event
from service.memories.indexing import Indexing
from service.memories.limits import check_characters, check_new
from service.memories.provenance import check_connector, with_connector
from service.memories.quarantining import keep_for_review
from service.memories.recognising import Kept, as_said, find_twins
from service.memories.stores import Stores
from service.memories.tables import IdempotencyRow
from service.policy.table import authorize
from service.queue.tasks import Queue
from service.records import Change, Event, EventStatus, Message, NewMemories
from service.scope import Action, Caller, Scope
from service.settings import Fallback
from service.storage.encryption import Place
from service.storage.keyring import KeyDestroyed
from service.storage.places import lined_up
from service.storage.stored import IndexEntry, StoredMemory, searchable
from service.storage.superseding import restate_as_said, supersede
from service.tenants.projects import Projects
from service.tenants.subjects import SubjectIds

#: How long an idempotency key is remembered.
IDEMPOTENCY_LIFE: Final = timedelta(hours=24)
_KEY_CHARS: Final = 255
_idempotency: Final[Any] = IdempotencyRow.__table__  # type: ignore[attr-defined]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Added:
    """What a verbatim add wrote."""

    entries: Sequence[IndexEntry]
    event: Event


class Adds:
    """What adds memories."""

    def __init__(
        self,
        stores: Stores,
        indexing: Indexing,
        events: Events,
        queue: Queue,
        *,
        extraction: bool,
        projects: Projects,
    ) -> None:
        self._stores = stores
        self._projects = projects
        self._indexing = indexing
        self._events = events
        self._queue = queue
        self._extraction = extraction

    def add(self, caller: Caller, scope: Scope, new: NewMemories, *, idempotency_key: str | None = None) -> Event:
        """Add memories and return the event: SUCCEEDED with results, or PENDING while the LLM is being asked.

        System messages are dropped. A memory that is there already (same subjects and metadata, and a text that says
        the same: `service.storage.alike`) is reported as NONE and not stored again. With an idempotency key, a repeated
        request gets the first one's event, unless that failed.

        Raises:
            InvalidInput, TooLarge: for what breaks a limit.
            ExtractionUnavailable: for `infer` without an LLM, unless the fallback is verbatim.
            IdempotencyConflict: when the idempotency key was used with another request.
            Forbidden: when a key that is bound to users names another, or none.
            QuotaExceeded: when the tenant has no room for what would be stored, or none at all.
            TooManyWaiting: when as many of its adds wait for the LLM as may wait.
        """
        stores = self._stores
        stores.gate.check(caller, Action.ADD)
        check_new(new, stores.settings.limits)
        validate_metadata(dict(new.metadata))
        stores.gate.check_user(caller, Action.ADD, new.subjects, writing=True)
        check_connector(stores, caller, Action.ADD, new.metadata)
        new = replace(new, metadata=with_connector(new.metadata, caller.principal.connector))
        _check_key(idempotency_key)
        messages = [message for message in new.messages if message.role != "system"]
        if not messages:
            raise InvalidInput("messages: only system messages or calls of tools, of which nothing is remembered")
        if new.infer and not self._extraction and stores.settings.fallback is Fallback.REFUSE:
            raise ExtractionUnavailable(
                "infer=true needs an LLM and none is configured: set llm.provider, or send infer=false"
            )
        with stores.trail.conflicts(caller, Action.ADD):
            earlier = stores.quotas.refuse_full(
                caller, lambda connection: self._earlier(connection, caller, scope, idempotency_key, new)
            )
        if earlier is not None:
            return self._replay(caller, scope, earlier)
        if new.infer and self._extraction:
            return self._add_later(caller, scope, new, messages, idempotency_key)
        notes = {"extraction": "off", "stored": "verbatim"} if new.infer else {}
        return self._add_now(caller, scope, new, messages, idempotency_key, notes)

    def _add_now(
        self,
        caller: Caller,
        scope: Scope,
        new: NewMemories,
        messages: Sequence[Message],
        idempotency_key: str | None,
        notes: dict[str, Any],
    ) -> Event:
        stores = self._stores
        embedder = stores.embedder
        vectors = list(embedder.embed_documents([searchable(message.content, message.name) for message in messages]))
        event_id = clock.new_id()

        def write(connection: Connection) -> _Added | UUID:
            earlier = self._claim(connection, caller, scope, idempotency_key, new, event_id)
            if earlier is not None:
                return earlier
            ids = stores.subjects.ensure(connection, scope, new.subjects)
            acting = caller.acting_for(ids.user_id)
            memories = [
                stored_memory(new, ids, caller, event_id, text=message.content, message=message) for message in messages
            ]
            # What was to be extracted is reviewed like what was, where there is no language model to do it.
            if new.infer and self._projects.settings(connection, scope).review_required:
                kept = keep_for_review(
                    stores, connection, scope, acting, event_id, memories, vectors, embedder=embedder.name
                )
                notes.pop("stored", None)
                notes["quarantined"] = sum(change is Change.QUARANTINED for _, change in kept.results)
            else:
                kept = store_memories(
                    stores, connection, scope, acting, event_id, memories, vectors, embedder=embedder.name
                )
            row = start_event(
                connection,
                acting,
                event_id=event_id,
                kind="ADD",
                status=EventStatus.SUCCEEDED,
                subject_ids=ids.all(),
                results=kept.results,
                notes=notes,
                may_wait=True,
            )
            return _Added(kept.entries, as_told(row, kept.results, kept.told, new.subjects))

        try:
            added = self._written(caller, scope, write)
        except QuotaExceeded as error:
            stores.quotas.refused(caller, error)
            raise
        if isinstance(added, UUID):
            return self._replay(caller, scope, added)
        self._indexing.apply(scope, added.entries)
        return added.event

    def _add_later(
        self,
        caller: Caller,
        scope: Scope,
        new: NewMemories,
        messages: Sequence[Message],
        idempotency_key: str | None,
    ) -> Event:
        stores = self._stores
        event_id = clock.new_id()

        def write(connection: Connection) -> Event | UUID:
            earlier = self._claim(connection, caller, scope, idempotency_key, new, event_id)
            if earlier is not None:
                return earlier
            most = stores.quotas.check_waiting(connection, scope)
            if most is not None and count_unfinished(connection) >= most:
                raise stores.quotas.too_many_waiting(most)
            ids = stores.subjects.ensure(connection, scope, new.subjects)
            acting = caller.acting_for(ids.user_id)
            cipher = stores.keyring.subject(scope.tenant_id, ids.owner)
            row = start_event(
                connection,
                acting,
                event_id=event_id,
                kind="ADD",
                status=EventStatus.PENDING,
                subject_ids=ids.all(),
                payload=cipher.seal(_payload(new, messages), payload_place(scope, event_id)),
            )
            self._queue.defer(
                connection,
                EXTRACT,
                {"tenant_id": str(scope.tenant_id), "event_id": str(event_id)},
                lock=scope_lock(stores, scope, ids),
            )
            stores.trail.write(
                connection, acting, AuditEvent.MEMORY_ADD_REQUESTED, subjects=ids.all(), targets=[event_id]
            )
            return as_told(row, [], [], new.subjects)

        try:
            added = self._written(caller, scope, write)
        except (QuotaExceeded, TooManyWaiting) as error:
            stores.quotas.refused(caller, error)
            raise
        return self._replay(caller, scope, added) if isinstance(added, UUID) else added

    def _written(self, caller: Caller, scope: Scope, write: Callable[[Connection], _T | UUID]) -> _T | UUID:
        """Run a write in a transaction of its own, once more when a subject was erased or two writes met meanwhile.

        An id instead of a result is that of the event that has the idempotency key: nothing is written then.
        """
        with self._stores.trail.conflicts(caller, Action.ADD):
            for last in (False, True):
                try:
                    return self._write_once(scope, write)
                except (IntegrityError, KeyDestroyed) as error:
                    # A subject was erased between looking it up and writing: its name is a new one's now.
                    self._stores.subjects.forget_names()
                    if last:
                        raise Conflict("the user, agent, app or run is being erased; try again later") from error
                except RecordBusy:
                    if last:
                        raise
        raise AssertionError("unreachable")

    def _write_once(self, scope: Scope, write: Callable[[Connection], _T | UUID]) -> _T | UUID:
        with self._stores.database.transaction(scope) as connection:
            written = write(connection)
            if isinstance(written, UUID):
                connection.rollback()
        return written

    def _claim(
        self,
        connection: Connection,
        caller: Caller,
        scope: Scope,
        idempotency_key: str | None,
        new: NewMemories,
        event_id: UUID,
    ) -> UUID | None:
        """Take the idempotency key for this event, or return the event that has it. Waits for one that is being made.

        Raises:
            IdempotencyConflict: when the key was used for another request.
        """
        if idempotency_key is None:
            return None
        key_mac, request_mac = self._macs(caller, scope, idempotency_key, new)
        mine = _mine(caller, key_mac)
        connection.execute(delete(_idempotency).where(mine, _idempotency.c.created_at < clock.now() - IDEMPOTENCY_LIFE))
        claim = (
            insert(_idempotency)
            .values(
                tenant_id=scope.tenant_id,
                principal_id=caller.principal.id,
                key_mac=key_mac,
                request_mac=request_mac,
                event_id=event_id,
                created_at=clock.now(),
            )
            .on_conflict_do_nothing()
            .returning(_idempotency.c.event_id)
        )
        row = None
        while row is None:
            if connection.execute(claim).scalar() is not None:
                return None
            # None when the event that had the key failed in this moment: then the key is free.
            row = connection.execute(select(_idempotency).where(mine)).first()
        return _event_of(row, request_mac)

    def _earlier(
        self, connection: Connection, caller: Caller, scope: Scope, idempotency_key: str | None, new: NewMemories
    ) -> UUID | None:
        """Return the event that has the idempotency key, without taking it; else as `_claim`."""
        if idempotency_key is None:
            return None
        key_mac, request_mac = self._macs(caller, scope, idempotency_key, new)
        fresh = _idempotency.c.created_at >= clock.now() - IDEMPOTENCY_LIFE
        row = connection.execute(select(_idempotency).where(_mine(caller, key_mac), fresh)).first()
        return None if row is None else _event_of(row, request_mac)

    def _macs(self, caller: Caller, scope: Scope, idempotency_key: str, new: NewMemories) -> tuple[bytes, bytes]:
        secret = self._stores.keyring.tenant_secret(scope.tenant_id, "idempotency")
        key_mac = hmac.digest(secret, _of_caller(caller, idempotency_key), hashlib.sha256)
        return key_mac, hmac.digest(secret, _payload(new, new.messages), hashlib.sha256)

    def _replay(self, caller: Caller, scope: Scope, event_id: UUID) -> Event:
        stores = self._stores
        with stores.database.transaction(scope) as connection:
            event = self._events.read(connection, scope, event_id)
            if not authorize(caller.principal, Action.GET_EVENT):
                # What was written once may say by now what somebody else has written there.
                event = replace(event, results=[replace(result, text=None) for result in event.results])
            stores.trail.write(
                connection,
                caller,
                AuditEvent.EVENT_READ,
                targets=[event_id],
                results=[result.memory_id for result in event.results if result.text is not None],
                detail=EventRead(replayed=True),
            )
        return event


def store_memories(
    stores: Stores,
    connection: Connection,
    scope: Scope,
    caller: Caller,
    event_id: UUID,
    memories: Sequence[StoredMemory],
    vectors: Sequence[Any],
    *,
    embedder: str,
) -> Kept:
    """Write memories with their audit row; return what the index needs once it commits, and what their event tells.

    Raises:
        QuotaExceeded: when the tenant has no room for them; the transaction has to be rolled back.
    """
    tokenizer = stores.tokenizer(scope)
    twins = find_twins(stores, connection, scope, memories, vectors, embedder=embedder)
    fresh = [(memory, vector) for memory, vector in zip(memories, vectors, strict=True) if memory.id not in twins]
    new = lined_up(connection, [memory for memory, _ in fresh])
    own = [vector for _, vector in fresh]
    tokens = [tokenizer.row_tokens(memory.metadata, memory.categories, memory.actor) for memory in new]
    placed = stores.record.insert(connection, scope, new, own, tokens, embedder=embedder)
    if any(placed[memory.id] == memory.id for memory in new):
        stores.quotas.check_room(connection, scope)
    told = [twins.get(memory.id, memory) for memory in memories]
    # A twin may be of this add, and itself the twin of one that was there.
    held = [placed.get(memory.id, memory.id) for memory in told]
    results = [
        (now_id, Change.ADD if now_id == memory.id else Change.NONE)
        for now_id, memory in zip(held, memories, strict=True)
    ]
    added = [memory_id for memory_id, change in results if change is Change.ADD]
    said, older = as_said(zip(held, memories, strict=True))
    known = {memory_id for memory_id, change in results if change is Change.NONE}
    restate_as_said(connection, {one: said[one] for one in known})
    superseded = supersede(connection, scope, older, said=said)
    stores.trail.write(
        connection,
        caller,
        AuditEvent.MEMORY_ADDED,
        subjects=memories[0].subject_ids() if memories else (),
        targets=[event_id],
        results=added,
        texts=[memory.text for memory in new if placed[memory.id] == memory.id],
        detail=MemoryAdded(
            added=len(added),
            known=len(results) - len(added),
            superseded=len({one for older in superseded.values() for one in older}) or None,
            expires_on=memories[0].expires_on if memories else None,
        ),
        may_wait=True,
    )
    entries = [
        IndexEntry(memory, vector, embedder, own_tokens)
        for memory, vector, own_tokens in zip(new, own, tokens, strict=True)
        if placed[memory.id] == memory.id
    ]
    return Kept(entries, results, told)


def stored_memory(
    new: NewMemories,
    ids: SubjectIds,
    caller: Caller,
    event_id: UUID,
    *,
    text: str,
    message: Message | None = None,
    role: str | None = None,
    inferred: bool = False,
    memory_id: UUID | None = None,
    linked_ids: tuple[UUID, ...] = (),
    supersedes: tuple[UUID, ...] = (),
    categories: Sequence[str] = (),
) -> StoredMemory:
    """Return a memory as it is to be stored for an add."""
    moment = clock.now()
    return StoredMemory(
        id=memory_id or clock.new_id(),
        version=1,
        user_id=ids.user_id,
        agent_id=ids.agent_id,
        app_id=ids.app_id,
        run_id=ids.run_id,
        text=text,
        metadata=new.metadata,
        categories=tuple(dict.fromkeys((*new.categories, *categories))),
        actor=message.name if message else None,
        role=message.role if message else role,
        inferred=inferred,
        created_at=new.occurred_at or moment,
        updated_at=new.occurred_at or moment,
        expires_on=new.expires_on,
        event_id=event_id,
        principal_id=caller.principal.id,
        connector=caller.principal.connector,
        linked_ids=linked_ids,
        supersedes=supersedes,
    )


def payload_place(scope: Scope, event_id: UUID) -> Place:
    """Return the place that an event's payload is sealed for."""
    return Place(scope.tenant_id, "events", event_id, "payload")


def scope_lock(stores: Stores, scope: Scope, ids: SubjectIds) -> str:
    """Return a name by which the extractions of the same subjects run one after the other; it tells nothing."""
    return scope_mac(stores, scope, ids).hex()


def scope_mac(stores: Stores, scope: Scope, ids: SubjectIds) -> bytes:
    """Return the keyed digest of a set of subjects."""
    secret = stores.keyring.tenant_secret(scope.tenant_id, "message-scope")
    parts = (ids.user_id, ids.agent_id, ids.app_id, ids.run_id)
    return hmac.digest(secret, b"".join(one.bytes if one else b"\x00" * 16 for one in parts), hashlib.sha256)


def _payload(new: NewMemories, messages: Sequence[Message]) -> bytes:
    """Return the request as JSON; the same request gives the same bytes."""
    value = asdict(new) | {"messages": [asdict(message) for message in messages]}
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _mine(caller: Caller, key_mac: bytes) -> ColumnElement[bool]:
    mine: ColumnElement[bool] = (_idempotency.c.principal_id == caller.principal.id) & (
        _idempotency.c.key_mac == key_mac
    )
    return mine


def _event_of(row: Any, request_mac: bytes) -> UUID:
    if not hmac.compare_digest(bytes(row.request_mac), request_mac):
        raise IdempotencyConflict("Idempotency-Key: was used before with another request; take a new one")
    return UUID(str(row.event_id))


def _of_caller(caller: Caller, idempotency_key: str) -> bytes:
    """Return what a key is known by: of a credential that acts for many users, each has keys of its own."""
    if caller.principal.acting is None:
        return idempotency_key.encode()
    return orjson.dumps([idempotency_key, caller.principal.acting])


def _check_key(idempotency_key: str | None) -> None:
    if idempotency_key is None:
        return
    check_characters(idempotency_key, "Idempotency-Key")
    if not 1 <= len(idempotency_key) <= _KEY_CHARS:
        raise InvalidInput(f"Idempotency-Key: must have 1 to {_KEY_CHARS} characters")
