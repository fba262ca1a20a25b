"""Entities: the users, agents, apps and runs of a tenant, and removing one with everything that belongs to it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from service import clock
from service.audit.details import EntitiesListed
from service.audit.events import AuditEvent, Outcome
from service.auth.endings import journal_ends_with_user
from service.errors import NotFound
from service.holds.guard import belongs_to, refuse_held_subject
from service.holds.minimum import Minimum
from service.memories.events import cancel_events
from service.memories.indexing import Indexing
from service.memories.stores import Stores
from service.records import Change, Entity, Page
from service.scope import Action, Caller, Scope, SubjectKind
from service.storage.erasers import erase_subject
from service.storage.erasing import Removed, purge_memories
from service.storage.outbox import GONE
from service.storage.stored import Slice
from service.storage.tombstones import TombstoneKind, tombstone_id

#: Hears of each batch, inside its transaction.
Note = Callable[[Connection, Removed], None]
#: Rows of a table that are removed in one transaction: short enough that other requests of the tenant go on beside it.
_ERASED_AT_ONCE: Final = 1000
_log = logging.getLogger("memvault.erasing")


class Entities:
    """The subjects that a caller can reach."""

    def __init__(self, stores: Stores, indexing: Indexing) -> None:
        self._stores = stores
        self._indexing = indexing

    def list(self, caller: Caller, scope: Scope, *, page: int = 1, size: int | None = None) -> Page[Entity]:
        """Return one page of the tenant's subjects, or all; the oldest first. A bound principal sees its users only."""
        stores = self._stores
        stores.gate.check(caller, Action.LIST_ENTITIES)
        with stores.database.transaction(scope) as connection:
            users = stores.bound_users(connection, scope)
            ids = None if users is None else list(users)
            part = None if size is None else Slice((page - 1) * size, size)
            subjects = stores.subjects.list(connection, scope, ids=ids, part=part)
            total = len(subjects) if part is None else stores.subjects.count(connection, ids=ids)
            some = None if len(subjects) == total else [subject.id for subject in subjects]
            counts = stores.record.counts(connection, on=clock.today(), subject_ids=some)
            entities = []
            for subject in subjects:
                memories, changed = counts.get(subject.id, (0, subject.created_at))
                entities.append(Entity(subject.id, subject.kind, subject.name, memories, subject.created_at, changed))
            stores.trail.write(
                connection,
                caller,
                AuditEvent.ENTITIES_LISTED,
                results=[subject.id for subject in subjects],
                detail=EntitiesListed(page=page, total=total),
            )
        return Page(entities, total, page, size or max(1, total))

    def delete(self, caller: Caller, scope: Scope, kind: SubjectKind, name: str) -> int:
        """Remove a subject: its key first, then its memories, history, events and messages; return how many memories.

        What was waiting for the LLM ends CANCELLED, so that nothing comes back. A crash in the middle is finished by
        `finish` at the next start.

        Raises:
            NotFound: when the caller's scope does not reach such a subject.
            LegalHold: when a hold covers it, one of its memories or something of its history, or keeps what waits; its
                key is as it was then.
        """
        stores = self._stores
        stores.gate.check(caller, Action.DELETE_ENTITY)
        recorded = stores.gate.recorded(caller, Action.DELETE_ENTITY)
        with recorded, stores.database.transaction(scope) as connection:
            subject_id = stores.subjects.find(connection, scope, [(kind, name)]).get((kind, name))
            bound = scope.users is not None and (kind is not SubjectKind.USER or name not in scope.users)
            if subject_id is None or bound:
                subject_id = None
                stores.trail.write(connection, caller, AuditEvent.ENTITY_DELETED, outcome=Outcome.NOT_FOUND)
            else:
                refuse_held_subject(connection, scope, subject_id)
                stores.waiting_holds.refuse_subject(connection, scope, subject_id)
                theirs = stores.record.stream(connection, scope, belongs_to(subject_id), users=None, on=None)
                Minimum(stores.keyring).refuse_kept(connection, scope, theirs)
                self.begin(connection, scope, subject_id)
                stores.trail.write(connection, caller, AuditEvent.ENTITY_DELETED, subjects=[subject_id])
        if subject_id is None:
            raise NotFound(f"there is no such {kind.value}")
        return self.finish(scope, subject_id)

    def begin(self, connection: Connection, scope: Scope, subject_id: UUID) -> None:
        """Begin to erase a subject: nothing new can be written for it, and what waits for the LLM is cancelled."""
        self._stores.subjects.begin_erasing(connection, scope, subject_id)
        cancel_events(connection, [subject_id], code="erased", reason="its subject was erased meanwhile")

    def finish(self, scope: Scope, subject_id: UUID, *, note: Note | None = None) -> int:
        """Destroy the key and remove the rows of a subject whose erasure has begun; return how many memories.

        Each batch stands for itself, so that whatever ends this in the middle, the next call goes on from there.
        `note` hears of each batch, inside its transaction.

        Raises:
            LegalHold: when a hold covers it, or something of it, all the same; nothing is destroyed then.
        """
        stores = self._stores
        with stores.database.transaction(scope) as connection:
            # No hold is placed on any of it since its erasure was begun. One may be there from a restore, or by a
            # memory that was changed since and joined it.
            refuse_held_subject(connection, scope, subject_id)
        kind = TombstoneKind.SUBJECT_ERASED
        tombstone = stores.tombstones.append(
            kind, scope.tenant_id, [subject_id], tombstone=tombstone_id(kind, scope.tenant_id, subject_id)
        )
        stores.keyring.destroy_subject(scope.tenant_id, subject_id)
        stores.subjects.forget(scope, subject_id)
        memories, ended = 0, False
        while not ended:
            with stores.database.transaction(scope) as connection:
                stores.subjects.wait_for_writers(connection, subject_id)
                removed = purge_memories(connection, scope, subject_id, limit=_ERASED_AT_ONCE)
                ids, rows = removed.memory_ids, Counter(removed.rows)
                stores.announcer.announce(connection, scope, Change.DELETE, ids)
                if len(ids) < _ERASED_AT_ONCE:
                    # In the transaction that found the last memories, under the lock: nothing can be added between.
                    journal_ends_with_user(connection, stores.tombstones, scope, subject_id)
                    others = erase_subject(connection, scope, subject_id, limit=_ERASED_AT_ONCE)
                    rows.update(others)
                    ended = max(others.values(), default=0) < _ERASED_AT_ONCE
                if ended:
                    stores.subjects.remove(connection, scope, subject_id)
                    stores.tombstones.note(connection, tombstone)
                if note is not None:
                    note(connection, replace(removed, rows=rows))
            self._indexing.apply(scope, [], gone=dict.fromkeys(ids, GONE))
            memories += len(ids)
        return memories

    def finish_all(self, scope: Scope, *, but: Collection[UUID] = ()) -> int:
        """Finish every erasure of the tenant that a crash cut short, but for these subjects; return how many.

        One that fails stops no other.
        """
        with self._stores.database.transaction(scope) as connection:
            waiting = self._stores.subjects.erasing(connection)
        finished = 0
        for subject_id in waiting:
            if subject_id in but:
                continue
            try:
                self.finish(scope, subject_id)
                finished += 1
            except Exception as error:
                _log.error("an erasure could not be finished and is tried again", extra={"error": type(error).__name__})
        return finished
