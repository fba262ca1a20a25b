"""Listing, reading, changing and deleting memories: the same for every face. Searching is in `searching`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, and_, true

from service import clock
from service.audit.details import MemoriesDeleted, MemoryListed, MemoryUpdated
from service.audit.events import AuditEvent, Outcome
from service.errors import InvalidInput, NotFound, QuotaExceeded, ScopeRequired
from service.filters.ast import Node
from service.filters.build import subjects_filter
from service.filters.metadata_limits import validate_metadata
from service.holds.guard import refuse_held, wait_for_placing
from service.holds.minimum import Minimum
from service.memories.asked_times import AskedTime
from service.memories.deleting import delete_memories
from service.memories.edits import UNSET, Edit, Unset, as_given, changed_fields, edited, grows
from service.memories.events import cancel_events, forget_messages, settle_unapproved
from service.memories.indexing import Indexing
from service.memories.limits import check_text
from service.memories.provenance import check_connector
from service.memories.quarantining import lock_waiting
from service.memories.searching import Query, Searching
from service.memories.stores import Stores
from service.policy.table import authorize
from service.records import HistoryEntry, Hit, Memory, Page, SubjectNames
from service.scope import Action, Caller, Scope
from service.storage.erasing import lock_matching
from service.storage.filter_sql import compile_sql
from service.storage.keyring import KeyDestroyed
from service.storage.outbox import GONE
from service.storage.record import memories_table, one_of
from service.storage.stored import IndexEntry, Slice, StoredMemory, searchable
from service.storage.superseding import is_current, reworded, superseded_by

_BATCH: Final = 500


class Memories:
    """The memories that a caller can reach."""

    def __init__(self, stores: Stores, indexing: Indexing) -> None:
        self._stores = stores
        self._indexing = indexing
        self._searching = Searching(stores, indexing)

    def search(self, caller: Caller, scope: Scope, query: Query) -> Sequence[Hit]:
        """See `Searching.search`."""
        return self._searching.search(caller, scope, query)

    def asked_time(self, scope: Scope, question: str, today: date) -> AskedTime:
        """See `Searching.asked_time`."""
        return self._searching.asked_time(scope, question, today)

    def list(
        self,
        caller: Caller,
        scope: Scope,
        where: Node,
        *,
        page: int,
        size: int,
        on: date | None,
        latest: bool = False,
    ) -> Page[Memory]:
        """Return one page of the memories that match, the newest first; `latest` leaves out what is superseded."""
        stores = self._stores
        stores.gate.check(caller, Action.LIST)
        stores.check_users(caller, Action.LIST, where)
        part = Slice((page - 1) * size, size)
        with stores.database.transaction(scope) as connection:
            lookup = stores.lookup(connection, scope, where)
            compiled = compile_sql(where, lookup, memories_table)
            wanted = is_current(on) if latest else true()
            if compiled.exact:
                clause = and_(compiled.clause, wanted)
                rows, total = stores.record.page(connection, scope, clause, part, users=lookup.users, on=on)
                memories = stores.presented(connection, scope, rows)
            else:
                memories, total = [], 0
                for memory in stores.matching(connection, scope, where, lookup, wanted, on=on):
                    if part.skip <= total < part.skip + part.size:
                        memories.append(memory)
                    total += 1
            stores.trail.write(
                connection,
                caller,
                AuditEvent.MEMORY_LISTED,
                subjects=lookup.subject_ids(),
                results=[memory.id for memory in memories],
                detail=MemoryListed(page=page, total=total),
            )
        return Page(memories, total, page, size)

    def get(self, caller: Caller, scope: Scope, memory_id: UUID) -> Memory:
        """Return one memory.

        Raises:
            NotFound: when the caller's scope does not reach such a memory, or it has expired.
        """
        stores = self._stores
        stores.gate.check(caller, Action.GET, targets=[memory_id])
        with stores.database.transaction(scope) as connection:
            stored = self._find(connection, scope, memory_id, on=clock.today())
            memories = stores.presented(connection, scope, [stored]) if stored else []
            outcome = Outcome.DONE if memories else Outcome.NOT_FOUND
            stores.trail.write(
                connection,
                caller,
                AuditEvent.MEMORY_READ,
                subjects=stored.subject_ids() if stored else (),
                targets=[memory_id],
                outcome=outcome,
            )
        if not memories:
            raise NotFound("there is no such memory")
        return memories[0]

    def history(self, caller: Caller, scope: Scope, memory_id: UUID) -> Sequence[HistoryEntry]:
        """Return a memory's history, the oldest step first; of a deleted memory too, then without texts.

        Raises:
            NotFound: when the caller's scope never reached such a memory.
        """
        stores = self._stores
        stores.gate.check(caller, Action.HISTORY, targets=[memory_id])
        with stores.database.transaction(scope) as connection:
            users = stores.bound_users(connection, scope)
            steps = stores.record.history(connection, scope, memory_id)
            present = stores.record.find(connection, scope, [memory_id], users=users, on=None).get(memory_id)
            if present is not None and present.expires_on is not None and present.expires_on < clock.today():
                steps = []
            if users is not None:
                steps = [step for step in steps if users.intersection(step.subject_ids)]
            named = stores.subject_names(connection, scope, [step.subject_ids for step in steps])
            entries = [
                HistoryEntry(
                    id=step.id,
                    memory_id=step.memory_id,
                    change=step.change,
                    old_text=step.old_text,
                    new_text=step.new_text,
                    subjects=subjects,
                    metadata=step.metadata,
                    created_at=step.created_at,
                    updated_at=step.updated_at,
                    actor=present.actor if present else None,
                    role=present.role if present else None,
                )
                for step, subjects in zip(steps, named, strict=True)
            ]
            outcome = Outcome.DONE if entries else Outcome.NOT_FOUND
            stores.trail.write(
                connection,
                caller,
                AuditEvent.HISTORY_READ,
                subjects=dict.fromkeys(one for step in steps for one in step.subject_ids),
                targets=[memory_id],
                outcome=outcome,
            )
        if not entries:
            raise NotFound("there is no such memory")
        return entries

    def update(self, caller: Caller, scope: Scope, memory_id: UUID, edit: Edit) -> Memory:
        """Change a memory and return it as it is now; the old text goes into its history. Reaches expired ones too.

        A caller that may not read it gets back what it has given and no more.
        With another text it is current, whatever superseded the old one, and nothing is proposed because of that.

        Raises:
            NotFound: when the caller's scope does not reach such a memory.
            InvalidInput: when nothing is changed, or a value breaks a limit.
            LegalHold: when a hold covers it.
        """
        stores = self._stores
        stores.gate.check(caller, Action.UPDATE, targets=[memory_id])
        if edit == Edit():
            raise InvalidInput("nothing to change: give text, metadata, timestamp or expiration_date")
        vector, embedder = None, stores.embedder
        if not isinstance(edit.text, Unset):
            check_text(edit.text, stores.settings.limits, "text")
            vector = embedder.embed_documents([searchable(edit.text, self._actor(scope, memory_id))])[0]
        if not isinstance(edit.metadata, Unset):
            validate_metadata(edit.metadata)
            check_connector(stores, caller, Action.UPDATE, edit.metadata)
        try:
            with stores.gate.recorded(caller, Action.UPDATE, targets=[memory_id]):
                changed = self._changed(caller, scope, memory_id, edit, vector, embedder.name)
        except QuotaExceeded as error:
            stores.quotas.refused(caller, error)
            raise
        except KeyDestroyed:
            # Erased between reading and writing: nothing was written, and there is nothing any more.
            changed = None
        if changed is None:
            raise NotFound("there is no such memory")
        memory, entries = changed
        self._indexing.apply(scope, entries)
        return memory if authorize(caller.principal, Action.GET) else as_given(memory, edit)

    def delete(self, caller: Caller, scope: Scope, memory_id: UUID, *, linked: bool = False) -> int:
        """Delete a memory, expired or not, and its text wherever it is kept, in one transaction; return how many.

        `linked` also deletes the older memories that it supersedes, and those that they do, within the scope: what an
        extraction linked or a consolidation accepted, and not what is only related.

        Raises:
            NotFound: when the caller's scope does not reach such a memory.
            LegalHold: when a hold covers it.
        """
        stores = self._stores
        stores.gate.check(caller, Action.DELETE, targets=[memory_id])
        recorded = stores.gate.recorded(caller, Action.DELETE, targets=[memory_id])
        with recorded, stores.database.transaction(scope) as connection:
            stored = self._find(connection, scope, memory_id, lock=True)
            doomed = [] if stored is None else [stored]
            if stored is not None and linked:
                doomed += self._superseded(connection, scope, stored)
            if doomed:
                self._remove(connection, scope, doomed)
            stores.trail.write(
                connection,
                caller,
                AuditEvent.MEMORY_DELETED,
                subjects=dict.fromkeys(one for memory in doomed for one in memory.subject_ids()),
                targets=[memory_id, *(one.id for one in doomed[1:])],
                outcome=Outcome.DONE if doomed else Outcome.NOT_FOUND,
            )
        if not doomed:
            raise NotFound("there is no such memory")
        self._indexing.apply(scope, [], gone={one.id: GONE for one in doomed})
        return len(doomed)

    def delete_all(self, caller: Caller, scope: Scope, names: SubjectNames) -> int:
        """Delete every memory of these subjects (all of them together) and return how many there were.

        Adds of the same subjects that are still being extracted are cancelled, so that nothing comes back later, and
        what waits for a reviewer is removed with them.

        Raises:
            ScopeRequired: when no subject is named: that would be everything.
            LegalHold: when a hold covers one of them, or whose waits for a reviewer; none is deleted then.
        """
        stores = self._stores
        stores.gate.check(caller, Action.DELETE_ALL)
        if not names:
            raise ScopeRequired("name a scope: user_id, agent_id, app_id or run_id; nothing was deleted")
        stores.gate.check_user(caller, Action.DELETE_ALL, names, writing=False)
        where = subjects_filter(names)
        with stores.gate.recorded(caller, Action.DELETE_ALL), stores.database.transaction(scope) as connection:
            lookup = stores.lookup(connection, scope, where)
            subject_ids = [lookup.subject(kind, name) for kind, name in names.items()]
            known = [one for one in subject_ids if one is not None]
            removed: list[UUID] = []
            waiting: dict[UUID, list[UUID]] = {}
            if len(known) == len(subject_ids):
                for reached in _reached(known, lookup.users):
                    cancel_events(connection, reached, code="deleted", reason="its scope was deleted meanwhile")
                    forget_messages(connection, subject_ids=reached)
                # Before the memories are looked for: an approval that is under way ends first, and is seen.
                waiting = lock_waiting(stores, connection, where, lookup)
                wait_for_placing(connection)
                clause = compile_sql(where, lookup, memories_table).clause
                removed = lock_matching(connection, clause, users=lookup.users)
                for start in range(0, len(removed), _BATCH):
                    # Read when it is removed: a scope may be larger than what fits into memory.
                    theirs = one_of(memories_table.c.id, removed[start : start + _BATCH])
                    part = stores.record.stream(connection, scope, theirs, users=lookup.users, on=None)
                    self._remove(connection, scope, list(part))
                stores.waiting_holds.remove(connection, scope, waiting)
                settle_unapproved(connection, {one: subjects[0] for one, subjects in waiting.items()})
            stores.trail.write(
                connection,
                caller,
                AuditEvent.MEMORIES_DELETED,
                subjects=known,
                targets=[*removed, *waiting],
                detail=MemoriesDeleted(count=len(removed), quarantined=len(waiting)),
            )
        self._indexing.apply(scope, [], gone=dict.fromkeys(removed, GONE))
        return len(removed)

    def _changed(
        self, caller: Caller, scope: Scope, memory_id: UUID, edit: Edit, vector: Any, embedder: str
    ) -> tuple[Memory, Sequence[IndexEntry]] | None:
        """Write a change with its audit row; return the memory and what the index needs, or None if there is none."""
        stores = self._stores
        with stores.database.transaction(scope) as connection:
            before = self._find(connection, scope, memory_id, lock=True)
            if before is None:
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.MEMORY_UPDATED,
                    targets=[memory_id],
                    outcome=Outcome.NOT_FOUND,
                    detail=MemoryUpdated(changed=changed_fields(edit)),
                )
                return None
            refuse_held(connection, scope, [memory_id])
            after = edited(before, edit, connector=caller.principal.connector)
            Minimum(stores.keyring).refuse_shortened(connection, scope, before, after)
            tokens = stores.tokenizer(scope).row_tokens(after.metadata, after.categories, after.actor)
            after = stores.record.update(connection, scope, before, after, vector, tokens, embedder=embedder)
            if after.text != before.text:
                reworded(connection, [memory_id])
            if grows(before, after):
                stores.quotas.check_room(connection, scope)
            stores.trail.write(
                connection,
                caller,
                AuditEvent.MEMORY_UPDATED,
                subjects=after.subject_ids(),
                targets=[memory_id],
                texts=[] if isinstance(edit.text, Unset) else [after.text],
                detail=MemoryUpdated(
                    changed=changed_fields(edit),
                    version=after.version,
                    expires_on=None if isinstance(edit.expires_on, Unset) else edit.expires_on,
                ),
            )
            entries = stores.record.index_entries(connection, scope, [memory_id])
            presented = stores.presented(connection, scope, [after])
        return (presented[0], list(entries.values())) if presented else None

    def _find(
        self, connection: Connection, scope: Scope, memory_id: UUID, *, on: date | None = None, lock: bool = False
    ) -> StoredMemory | None:
        users = self._stores.bound_users(connection, scope)
        found = self._stores.record.find(connection, scope, [memory_id], users=users, on=on, lock=lock)
        return found.get(memory_id)

    def _superseded(self, connection: Connection, scope: Scope, newest: StoredMemory) -> Sequence[StoredMemory]:
        """Return the older memories that a memory supersedes, through all generations, locked."""
        users = self._stores.bound_users(connection, scope)
        older = superseded_by(connection, newest.id)
        found = self._stores.record.find(connection, scope, older, users=users, on=None, lock=True)
        # What was said anew until the lock was had is current itself.
        still = superseded_by(connection, newest.id)
        return [memory for memory in found.values() if memory.id in still]

    def _actor(self, scope: Scope, memory_id: UUID) -> str | None:
        """Return who said a memory, which never changes, before the transaction that changes the text."""
        with self._stores.database.transaction(scope) as connection:
            stored = self._find(connection, scope, memory_id)
        return stored.actor if stored else None

    def _remove(self, connection: Connection, scope: Scope, stored: Sequence[StoredMemory]) -> None:
        refuse_held(connection, scope, [one.id for one in stored])
        Minimum(self._stores.keyring).refuse_kept(connection, scope, stored)
        keep_texts = self._stores.settings.history.keep_deleted
        delete_memories(connection, scope, self._stores.record, stored, keep_texts=keep_texts)


def _reached(subject_ids: Sequence[UUID], users: frozenset[UUID] | None) -> list[list[UUID]]:
    """Return the sets of subjects whose events a principal reaches: for a bound one, those with one of its users."""
    if users is None or users.intersection(subject_ids):
        return [list(subject_ids)]
    return [[*subject_ids, user] for user in users]


__all__ = ["UNSET", "Edit", "Memories", "Query"]
