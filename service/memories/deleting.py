"""Deletes memories with every text of theirs that is kept elsewhere: the one way for callers, batches and rules."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from service.memories.events import forget_messages
from service.scope import Scope
from service.storage.erasers import erase_with_memories
from service.storage.record import Record
from service.storage.stored import StoredMemory


def delete_memories(
    connection: Connection, scope: Scope, record: Record, memories: Sequence[StoredMemory], *, keep_texts: bool
) -> None:
    """Delete memories, which are locked and which no hold or minimum keeps: their callers have asked for both.

    Gone are their rows in other tables, the buffered messages of their adds and, unless `keep_texts`, the texts of
    their history. The outbox tells the index.
    """
    if not memories:
        return
    erase_with_memories(connection, [memory.id for memory in memories], but=["history"])
    record.delete(connection, scope, memories, keep_texts=keep_texts)
    forget_messages(connection, event_ids=[memory.event_id for memory in memories if memory.event_id is not None])
