"""Puts what was extracted into quarantine instead of into the record, and finds it when its scope is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from service.audit.events import AuditEvent
from service.audit.tenant_details import MemoryQuarantined
from service.filters.ast import Node
from service.memories.recognising import Kept, as_said, find_twins
from service.memories.stores import Stores, TenantLookup
from service.records import Change
from service.scope import Caller, Scope
from service.storage.filter_sql import compile_sql
from service.storage.quarantine import quarantine_table
from service.storage.stored import StoredMemory
from service.storage.superseding import restate_as_said


def keep_for_review(
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
    """Put memories into quarantine with their audit row, and return what their event tells.

    What the record has already, in the same or in like words, stays what it is (NONE) and is current again, unless
    what supersedes it was said later. Nothing reaches the index.

    Raises:
        QuotaExceeded: when the tenant has no room for them; the transaction has to be rolled back.
    """
    own = {memory.id for memory in memories}
    twins = find_twins(stores, connection, scope, memories, vectors, embedder=embedder)
    # Two of one add that say the same are the reviewer's to decide on.
    alike = {memory_id: twin for memory_id, twin in twins.items() if twin.id not in own}
    known = {memory_id: twin.id for memory_id, twin in alike.items()}
    known |= stores.record.known(connection, scope, [memory for memory in memories if memory.id not in alike])
    said, _ = as_said((known[memory.id], memory) for memory in memories if memory.id in known)
    restate_as_said(connection, said)
    fresh = [(memory, vector) for memory, vector in zip(memories, vectors, strict=True) if memory.id not in known]
    tokenizer = stores.tokenizer(scope)
    waiting = stores.quarantine.put(
        connection,
        scope,
        [memory for memory, _ in fresh],
        [vector for _, vector in fresh],
        [tokenizer.row_tokens(memory.metadata, memory.categories, memory.actor) for memory, _ in fresh],
        embedder=embedder,
    )
    new = [memory for memory, _ in fresh if waiting[memory.id] == memory.id]
    if new:
        stores.quotas.check_room(connection, scope)
    stores.trail.write(
        connection,
        caller,
        AuditEvent.MEMORY_QUARANTINED,
        subjects=memories[0].subject_ids() if memories else (),
        targets=[event_id],
        results=[memory.id for memory in new],
        texts=[memory.text for memory in new],
        detail=MemoryQuarantined(waiting=len(new), known=len(memories) - len(new)),
    )
    results = [
        (known[memory.id], Change.NONE) if memory.id in known else (waiting[memory.id], Change.QUARANTINED)
        for memory in memories
    ]
    return Kept([], results, [alike.get(memory.id, memory) for memory in memories])


def lock_waiting(stores: Stores, connection: Connection, where: Node, lookup: TenantLookup) -> dict[UUID, list[UUID]]:
    """Return the ids of what waits and matches a filter that SQL can decide alone, each with its subjects, locked.

    Reviewers that decide on any of it at present end first.
    """
    clause = compile_sql(where, lookup, quarantine_table).clause
    return stores.quarantine.ids(connection, clause, users=lookup.users)
