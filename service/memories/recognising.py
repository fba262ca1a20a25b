"""Recognises what an add brings and the record has already, and tells what became of each memory of an add."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from service.memories.stores import Stores
from service.records import Change
from service.scope import Scope
from service.storage.alike import already_there
from service.storage.stored import IndexEntry, StoredMemory


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of the memories of an add: what the index needs of the new ones, and what the event tells of each.

    `told` are the memories that the results are of, as they are stored.
    """

    entries: Sequence[IndexEntry]
    results: Sequence[tuple[UUID, Change]]
    told: Sequence[StoredMemory]


def as_said(held: Iterable[tuple[UUID, StoredMemory]]) -> tuple[dict[UUID, datetime], dict[UUID, set[UUID]]]:
    """Return, by the ids under which memories are held now, when they were said, and what they are said to supersede.

    Several of an add may be held under one id.
    """
    said: dict[UUID, datetime] = {}
    older: dict[UUID, set[UUID]] = defaultdict(set)
    for now_id, memory in held:
        said[now_id] = max(said.get(now_id, memory.created_at), memory.created_at)
        older[now_id].update(memory.supersedes)
    return said, older


def find_twins(
    stores: Stores,
    connection: Connection,
    scope: Scope,
    memories: Sequence[StoredMemory],
    vectors: Sequence[Any],
    *,
    embedder: str,
) -> dict[UUID, StoredMemory]:
    """Return, by the ids of those that need not be stored, what says the same, of the record or of this add.

    They stay until this transaction ends. None is found where near-duplicates are not looked for.
    """
    least = stores.settings.duplicates.similarity
    if least is None or not memories:
        return {}
    found = already_there(stores.record, connection, scope, memories, vectors, embedder=embedder, least=least)
    return {memory.id: twin for memory, twin in zip(memories, found, strict=True) if twin is not None}
