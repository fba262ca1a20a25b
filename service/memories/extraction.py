"""Deferred adds: asks the engine, checks that the world is still the one of the request, and commits what it staged."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, delete, insert, select

from service import clock
from service.audit.details import MemoryAddEnded
from service.audit.events import AuditEvent, Outcome
from service.auth.keys import key_acts_for, permissions_of
from service.auth.standing import Lost, find_lost
from service.embeddings.embedder import Vector
from service.engine.engine import Engine
from service.engine.errors import EngineError, StoreAway
from service.engine.shapes import Extraction, Recalled, tokens_of
from service.errors import MemvaultError, QuotaExceeded, RecordUnavailable, Unavailable
from service.filters.build import subjects_filter
from service.index.fusion import fuse
from service.index.interface import Index
from service.memories.adds import payload_place, scope_lock, scope_mac, store_memories, stored_memory
from service.memories.events import EXTRACT, lock_event, lost_events, move_event
from service.memories.indexing import Indexing
from service.memories.quarantining import keep_for_review
from service.memories.stores import Stores
from service.memories.tables import EventRow
from service.observability import logs
from service.queue.tasks import Queue
from service.records import Change, EventStatus, Message, NewMemories, SubjectNames
from service.scope import Caller, Permission, Principal, PrincipalKind, Scope, TenantId, service_principal
from service.storage.comparing import unchanged
from service.storage.encryption import Place
from service.storage.keyring import KeyDestroyed
from service.storage.stored import IndexEntry
from service.storage.superseding import current
from service.storage.tables import MessageRow
from service.tenants.projects import Projects, ProjectSettings
from service.tenants.subjects import SubjectIds

_log: Final = logging.getLogger("memvault.extraction")
_events: Final[Any] = EventRow.__table__  # type: ignore[attr-defined]
_messages: Final[Any] = MessageRow.__table__  # type: ignore[attr-defined]
#: Mem0 shows the LLM this many earlier messages; older ones are of no use and are not kept.
_KEPT_MESSAGES: Final = 10
_CANDIDATES: Final = 40
#: An event that was begun so often and never ended takes its workers down with it.
_MOST_STARTS: Final = 50
#: Seconds between the tries to commit.
_COMMIT_WAITS: Final = (0.1, 1.0, 3.0)
_UNEXPECTED: Final = "the service failed in a way that it did not expect; its log tells the kind of error"
_NEVER_ENDED: Final = f"the extraction was begun {_MOST_STARTS} times and never ended"


@dataclass(frozen=True, slots=True)
class _Work:
    """An event that was taken up: what to extract, for whom, which try this is and on which day it began."""

    event_id: UUID
    caller: Caller
    new: NewMemories
    ids: SubjectIds
    attempt: int
    begun: date
    project: ProjectSettings


class Extractions:
    """Runs the extraction of one event. Running it twice at once or again after a crash is harmless."""

    def __init__(self, stores: Stores, indexing: Indexing, engine: Engine, queue: Queue, projects: Projects) -> None:
        self._stores = stores
        self._projects = projects
        self._indexing = indexing
        self._engine = engine
        self._queue = queue

    def run(self, tenant_id: str, event_id: str) -> None:
        """Extract the memories of an event and end it, or put it back into the queue for another try.

        Raises:
            Unavailable: when a store or the embedding provider is away. The event waits, for ending it would throw its
                messages away: the same job is to be run again later.
        """
        scope, event = Scope.of(service_principal(TenantId(UUID(tenant_id)))), UUID(event_id)
        try:
            self._run(scope, event)
        except Unavailable:
            raise
        except Exception as error:
            _log.error("an extraction failed", extra={"error": type(error).__name__}, exc_info=error)
            self._end(scope, event, code="internal_error", reason=_UNEXPECTED)

    def _run(self, scope: Scope, event_id: UUID) -> None:
        work = self._take_up(scope, event_id)
        if work is None:
            return
        serving = self._stores.generations.serving
        reader = _Reader(self._stores, self._indexing, scope, work, serving.index)
        try:
            extraction = self._engine.extract(
                work.new.messages,
                work.new.subjects,
                reader=reader,
                instructions=work.project.instructions_for(agent_alone=_of_an_agent_alone(work.new.subjects)),
                categories=work.project.custom_categories,
                occurred_at=work.new.occurred_at,
                procedural=work.new.procedural,
                wait=self._stores.settings.llm.timeout + 30,
                tenant_id=scope.tenant_id,
                embedder=serving.embedder,
            )
        except StoreAway as error:
            self._wait(scope, work, error)
            raise error.away from None
        except EngineError as error:
            self._fail(scope, work, error)
            self._stores.quotas.end_llm_call_apart(scope, work.begun, error.asked, tokens_of(error.usage))
            return
        except Unavailable:
            raise
        except MemvaultError as error:
            self._end(scope, event_id, code=error.code, reason=error.detail, caller=work.caller)
            return
        try:
            entries = self._committed(scope, work, extraction, reader.shown, serving.embedder.name)
        except QuotaExceeded as error:
            # Told by its event: another try would ask the LLM again and find no more room.
            self._end(scope, event_id, code=error.code, reason=error.detail, caller=work.caller)
            self._stores.quotas.refused(work.caller, error)
            # What the commit had counted was rolled back with it.
            self._stores.quotas.spend_tokens_apart(scope, tokens_of(extraction.usage))
            return
        self._indexing.apply(scope, entries)

    def retry_unfinished(self, scope: Scope, *, older_than: timedelta) -> int:
        """Queue again the events that are unfinished and have no job, untouched for so long; return how many.

        Jobs of workers that died come back by themselves; this is for an event whose job is lost.
        """
        stores = self._stores
        with stores.database.transaction(scope) as connection:
            query = (
                select(_events.c.id, _events.c.subject_ids)
                .where(lost_events(older_than))
                .order_by(_events.c.updated_at)
                .with_for_update(skip_locked=True)
            )
            rows = connection.execute(query).all()
            for row in rows:
                named = stores.subjects.names(connection, scope, row.subject_ids)
                ids = SubjectIds.of((kind, subject_id) for subject_id, (kind, _) in named.items())
                self._defer(connection, scope, row.id, ids)
                move_event(connection, row.id, EventStatus.PENDING)
        return len(rows)

    def _defer(
        self, connection: Connection, scope: Scope, event_id: UUID, ids: SubjectIds, *, at: datetime | None = None
    ) -> None:
        self._queue.defer(
            connection,
            EXTRACT,
            {"tenant_id": str(scope.tenant_id), "event_id": str(event_id)},
            lock=scope_lock(self._stores, scope, ids),
            at=at,
        )

    def _take_up(self, scope: Scope, event_id: UUID) -> _Work | None:
        with self._stores.database.transaction(scope) as connection:
            row = lock_event(connection, event_id)
            if row is None or EventStatus(row.status).is_final:
                return None
            logs.tell(request_id=row.request_id)
            if row.attempts >= _MOST_STARTS:
                self._close(connection, scope, row, code="internal_error", reason=_NEVER_ENDED)
                return None
            caller, obstacle = self._check(connection, scope, row)
            if caller is None:
                self._cancel(connection, scope, row, obstacle)
                return None
            try:
                cipher = self._stores.keyring.subject(scope.tenant_id, row.owner_id)
            except KeyDestroyed:
                self._cancel(connection, scope, row, "erased")
                return None
            new = _opened(cipher.open(row.payload, payload_place(scope, event_id)))
            ids = self._stores.subjects.ensure(connection, scope, new.subjects)
            project, begun = self._projects.settings(connection, scope), clock.today()
            postponed = self._stores.quotas.begin_llm_call(connection, scope)
            if postponed is None:
                move_event(connection, event_id, EventStatus.RUNNING, attempts=row.attempts + 1)
            else:
                reason = postponed.reason
                move_event(connection, event_id, EventStatus.PENDING, code=postponed.code, reason=reason)
                self._defer(connection, scope, event_id, ids, at=postponed.until)
        if postponed is not None:
            self._stores.quotas.postponed(caller, postponed)
            return None
        return _Work(event_id, caller, new, ids, row.attempts + 1, begun, project)

    def _committed(
        self, scope: Scope, work: _Work, extraction: Extraction, shown: Mapping[UUID, int], embedder: str
    ) -> Sequence[IndexEntry]:
        """Commit, with some patience for a record that is away or busy: asking the LLM again would cost more."""
        for wait in _COMMIT_WAITS:
            try:
                return self._commit(scope, work, extraction, shown, embedder)
            except RecordUnavailable:
                time.sleep(wait)
        return self._commit(scope, work, extraction, shown, embedder)

    def _commit(
        self, scope: Scope, work: _Work, extraction: Extraction, shown: Mapping[UUID, int], embedder: str
    ) -> Sequence[IndexEntry]:
        """Write what was staged, in one transaction that first checks that nothing was revoked or erased meanwhile.

        What was changed since it was `shown`, with its version, is not superseded: the LLM never saw what it says now.
        """
        stores = self._stores
        tokens = tokens_of(extraction.usage)
        with stores.database.transaction(scope) as connection:
            row = lock_event(connection, work.event_id)
            if row is None or row.status != EventStatus.RUNNING.value:
                stores.quotas.spend_tokens(connection, scope, tokens)
                return []
            caller, obstacle = self._check(connection, scope, row)
            if caller is None:
                self._cancel(connection, scope, row, obstacle)
                stores.quotas.spend_tokens(connection, scope, tokens)
                return []
            named = {one for draft in extraction.drafts for one in draft.superseded_ids}
            stood = unchanged(connection, {one: shown[one] for one in named}) if named else set()
            memories = [
                stored_memory(
                    work.new,
                    work.ids,
                    work.caller,
                    work.event_id,
                    text=draft.text,
                    role=draft.attributed_to,
                    inferred=True,
                    memory_id=draft.id,
                    linked_ids=draft.linked_memory_ids,
                    supersedes=tuple(one for one in draft.superseded_ids if one in stood),
                    categories=draft.categories,
                )
                for draft in extraction.drafts
            ]
            vectors = [draft.vector for draft in extraction.drafts]
            if review := self._projects.settings(connection, scope).review_required:
                kept = keep_for_review(
                    stores, connection, scope, caller, work.event_id, memories, vectors, embedder=embedder
                )
            else:
                kept = store_memories(
                    stores, connection, scope, caller, work.event_id, memories, vectors, embedder=embedder
                )
                # Messages of what nobody has approved must not reach the next prompt by this way.
                self._buffer(connection, scope, work, extraction.messages)
            counts = extraction.counts
            known = sum(change is Change.NONE for _, change in kept.results)
            notes: dict[str, Any] = {
                "messages": len(work.new.messages),
                "offered": counts.offered,
                "stored": len(kept.entries),
                "dropped": {**counts.dropped, **({"known": known} if known else {})},
            }
            if review:
                notes["quarantined"] = sum(change is Change.QUARANTINED for _, change in kept.results)
            if extraction.usage is not None:
                notes["tokens"] = {"prompt": extraction.usage.prompt, "completion": extraction.usage.completion}
            stores.quotas.end_llm_call(connection, scope, work.begun, extraction.asked, tokens)
            move_event(connection, work.event_id, EventStatus.SUCCEEDED, results=kept.results, notes=notes)
        return kept.entries

    def _wait(self, scope: Scope, work: _Work, error: StoreAway) -> None:
        """Let an event wait for a store. A try that never reached the LLM does not count: there may be any number."""
        with self._stores.database.transaction(scope) as connection:
            row = lock_event(connection, work.event_id)
            if row is not None and row.status == EventStatus.RUNNING.value:
                tries, code = row.attempts - (not error.asked), error.away.code
                move_event(connection, row.id, EventStatus.PENDING, code=code, reason=error.detail, attempts=tries)
            self._stores.quotas.end_llm_call(connection, scope, work.begun, error.asked, tokens_of(error.usage))

    def _fail(self, scope: Scope, work: _Work, error: EngineError) -> None:
        """Put the event back for another try when that can help, else end it with the reason."""
        llm = self._stores.settings.llm
        most = min(llm.attempts, error.max_attempts or llm.attempts)
        if not error.transient or work.attempt >= most:
            self._end(scope, work.event_id, code=error.code, reason=error.detail, caller=work.caller)
            return
        wait = max(llm.retry_wait * 2 ** (work.attempt - 1), error.retry_after or 0)
        with self._stores.database.transaction(scope) as connection:
            row = lock_event(connection, work.event_id)
            if row is None or row.status != EventStatus.RUNNING.value:
                return
            move_event(connection, work.event_id, EventStatus.PENDING, code=error.code, reason=error.detail)
            self._defer(connection, scope, work.event_id, work.ids, at=clock.now() + timedelta(seconds=wait))

    def _end(self, scope: Scope, event_id: UUID, *, code: str, reason: str, caller: Caller | None = None) -> None:
        with self._stores.database.transaction(scope) as connection:
            row = lock_event(connection, event_id)
            if row is not None and not EventStatus(row.status).is_final:
                self._close(connection, scope, row, code=code, reason=reason, caller=caller)

    def _close(
        self,
        connection: Connection,
        scope: Scope,
        row: Any,
        *,
        code: str,
        reason: str,
        status: EventStatus = EventStatus.FAILED,
        caller: Caller | None = None,
    ) -> None:
        """End an event without an effect, for the reason that is given."""
        move_event(connection, row.id, status, code=code, reason=reason)
        kind = PrincipalKind(row.principal_kind)
        asked = Principal(scope.tenant_id, row.principal_id, frozenset(), kind=kind, acts_for=row.acting_id)
        self._stores.trail.write(
            connection,
            caller or Caller(asked, request_id=row.request_id, client=row.client, face=row.face),
            AuditEvent.MEMORY_ADD_ENDED,
            outcome=Outcome.FAILED if status is EventStatus.FAILED else Outcome.REFUSED,
            subjects=row.subject_ids,
            targets=[row.id],
            detail=MemoryAddEnded(code=code),
        )

    def _check(self, connection: Connection, scope: Scope, row: Any) -> tuple[Caller | None, str]:
        """Return the caller that the event acts for, or None with the code of what changed since it asked."""
        kind = PrincipalKind(row.principal_kind)
        key, lost = find_lost(connection, scope.tenant_id, row.principal_id, kind, Permission.MEMORY_WRITE)
        if lost is not None:
            return None, lost.value
        if self._stores.subjects.lock(connection, row.subject_ids) != set(row.subject_ids):
            return None, "erased"
        principal = _principal_of(scope, row, key)
        return Caller(principal, request_id=row.request_id, client=row.client, face=row.face), ""

    def _cancel(self, connection: Connection, scope: Scope, row: Any, code: str) -> None:
        self._close(connection, scope, row, code=code, reason=_OBSTACLES[code], status=EventStatus.CANCELLED)

    def _buffer(self, connection: Connection, scope: Scope, work: _Work, messages: Sequence[Message]) -> None:
        """Keep the last messages as context for the next extraction of the same subjects, and no older ones."""
        if not messages:
            return
        stores = self._stores
        mac = scope_mac(stores, scope, work.ids)
        cipher = stores.keyring.subject(scope.tenant_id, work.ids.owner)
        rows = []
        for message in messages[-_KEPT_MESSAGES:]:
            row_id = clock.new_id()
            value = {"role": message.role, "content": message.content, "name": message.name}
            rows.append(
                {
                    "tenant_id": scope.tenant_id,
                    "id": row_id,
                    "scope_mac": mac,
                    "owner_id": work.ids.owner,
                    "event_id": work.event_id,
                    "content": cipher.seal_json(value, _message_place(scope, row_id)),
                    "created_at": clock.now(),
                }
            )
        connection.execute(insert(_messages), rows)
        same = _messages.c.scope_mac == mac
        newest = select(_messages.c.id).where(same).order_by(_messages.c.seq.desc()).limit(_KEPT_MESSAGES)
        connection.execute(delete(_messages).where(same, _messages.c.id.not_in(newest)))


class _Reader:
    """What one extraction may see: the memories and last messages of its own subjects.

    `shown` are the versions of the memories that it saw.
    """

    def __init__(self, stores: Stores, indexing: Indexing, scope: Scope, work: _Work, index: Index) -> None:
        self._stores = stores
        self._indexing = indexing
        self._scope = scope
        self._work = work
        self._index = index
        self.shown: dict[UUID, int] = {}

    def similar(self, text: str, limit: int, *, vector: Vector) -> Sequence[Recalled]:
        """Return the current memories of the same subjects that are most like the text, never some of them for all.

        What a newer one supersedes is not shown: a model that sees it leaves a fact out that is true again.
        """
        self._indexing.check()
        scope, stores = self._scope, self._stores
        where = subjects_filter(self._work.new.subjects)
        with stores.database.transaction(scope) as connection:
            lookup = stores.lookup(connection, scope, where)
        terms = self._indexing.terms(scope).query(text)
        answer = self._index.of(scope).search(
            vector, terms, where, lookup, limit=_CANDIDATES, users=None, on=clock.today()
        )
        ranked = fuse(answer.candidates).part(0, _CANDIDATES)
        with stores.database.transaction(scope) as connection:
            now = current(connection, [one.memory_id for one in ranked], clock.today())
            ranked = [one for one in ranked if one.memory_id in now][:limit]
            ids = [one.memory_id for one in ranked]
            found = stores.record.find(connection, scope, ids, users=None, on=clock.today())
            self.shown |= {memory.id: memory.version for memory in found.values()}
            stores.trail.write(
                connection,
                self._work.caller,
                AuditEvent.MEMORY_RECALLED,
                subjects=self._work.ids.all(),
                targets=[self._work.event_id],
                results=[one for one in ids if one in found],
                query=text,
            )
        return [
            Recalled(one.memory_id, found[one.memory_id].text, one.score) for one in ranked if one.memory_id in found
        ]

    def last_messages(self, limit: int) -> Sequence[Message]:
        """Return the last messages of the same subjects, the oldest first."""
        scope, stores = self._scope, self._stores
        mac = scope_mac(stores, scope, self._work.ids)
        query = select(_messages).where(_messages.c.scope_mac == mac).order_by(_messages.c.seq.desc()).limit(limit)
        with stores.database.transaction(scope) as connection:
            rows = connection.execute(query).all()
        messages = []
        for row in reversed(rows):
            cipher = stores.keyring.subject(scope.tenant_id, row.owner_id)
            messages.append(Message(**cipher.open_json(row.content, _message_place(scope, row.id))))
        return messages


_OBSTACLES: Final = {
    Lost.TENANT: "the tenant was suspended meanwhile",
    Lost.KEY: "the key that asked was revoked or expired meanwhile",
    Lost.PERMISSION: "the key that asked may not write any more",
    "erased": "the user, agent, app or run was erased meanwhile",
}


def _principal_of(scope: Scope, row: Any, key: Any | None) -> Principal:
    """Return whom an event acts for, as it may act now by the row of its key.

    Without one it was a token: what was allowed when it was presented is carried out also after it ended; suspending
    the tenant or erasing the subject stops it.
    """
    if key is None:
        return Principal(
            scope.tenant_id,
            row.principal_id,
            frozenset({Permission.MEMORY_WRITE}),
            kind=PrincipalKind.TOKEN,
            acts_for=row.acting_id,
        )
    return Principal(
        scope.tenant_id,
        row.principal_id,
        permissions_of(key.permissions),
        connector=key.connector,
        acts_for=row.acting_id or key_acts_for(key),
    )


def _of_an_agent_alone(names: SubjectNames) -> bool:
    """Tell whether Mem0 writes these memories from the agent's point of view."""
    return names.agent_id is not None and names.user_id is None


def _message_place(scope: Scope, row_id: UUID) -> Place:
    return Place(scope.tenant_id, "messages", row_id, "content")


def _opened(payload: bytes) -> NewMemories:
    value = orjson.loads(payload)
    occurred_at, expires_on = value["occurred_at"], value["expires_on"]
    return NewMemories(
        messages=[Message(**message) for message in value["messages"]],
        subjects=SubjectNames(**value["subjects"]),
        metadata=value["metadata"],
        infer=value["infer"],
        categories=value["categories"],
        occurred_at=None if occurred_at is None else datetime.fromisoformat(occurred_at),
        expires_on=None if expires_on is None else date.fromisoformat(expires_on),
        procedural=value["procedural"],
    )
