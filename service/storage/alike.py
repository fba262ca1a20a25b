"""Finds what is about to be stored and is there already in other words that say the same: a near-duplicate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, func, select, update

from service.scope import Scope
from service.storage.record import Record, memories_table
from service.storage.stored import IndexEntry, StoredMemory
from service.storage.wording import gist, plain

#: Memories of one likeness, and of all that are added at once, that are looked at; behind them nothing is alike.
_MOST_EACH: Final = 20
_FEWEST: Final = 200
_m: Final[Any] = memories_table.c
#: What tells which of some memories a legal hold covers.
Held: TypeAlias = Callable[[Connection, Scope, Collection[UUID]], Collection[UUID]]


def already_there(
    record: Record,
    connection: Connection,
    scope: Scope,
    memories: Sequence[StoredMemory],
    vectors: Sequence[np.ndarray],
    *,
    embedder: str,
    least: float,
) -> list[StoredMemory | None]:
    """Return for each memory the one that says the same, of the record or before it in `memories`, or None.

    All but the text and the times is the same in both. The text is the same but for case, spaces and its full stop, or
    has the same gist with a cosine of `least` between the vectors, which must be of one model.
    """
    likenesses = [record.likeness(scope, memory) for memory in memories]
    known: dict[int, list[IndexEntry]] = defaultdict(list)
    most = max(_FEWEST, len(memories) * _MOST_EACH)
    for entry in record.likely(connection, scope, likenesses, most=most):
        known[record.likeness(scope, entry.memory)].append(entry)
    found: list[StoredMemory | None] = []
    for memory, vector, likeness in zip(memories, vectors, likenesses, strict=True):
        entry = IndexEntry(memory, vector, embedder, ())
        twin = next((other.memory for other in known[likeness] if says_the_same(entry, other, least)), None)
        found.append(twin)
        if twin is None:
            known[likeness].append(entry)
    return found


def repeated(connection: Connection, *, after: int | None, limit: int) -> list[int]:
    """Return likenesses that several memories of the tenant have, by their order."""
    query = select(_m.likeness).where(_m.likeness.is_not(None) if after is None else _m.likeness > after)
    query = query.group_by(_m.likeness).having(func.count() > 1).order_by(_m.likeness).limit(limit)
    return list(connection.execute(query).scalars())


def fill_likenesses(
    record: Record, connection: Connection, scope: Scope, *, after: UUID | None, limit: int, but: Held
) -> UUID | None:
    """Give memories of before their likeness, in the order of their ids; return where to go on, None at the end.

    `but` tells which may not be written at all.
    """
    query = select(_m.id).where(_m.likeness.is_(None)).order_by(_m.id).limit(limit)
    ids = list(connection.execute(query if after is None else query.where(_m.id > after)).scalars())
    held = but(connection, scope, ids)
    memories = record.find(connection, scope, [one for one in ids if one not in held], users=None, on=None)
    for memory in memories.values():
        this = (_m.id == memory.id) & (_m.version == memory.version)
        connection.execute(update(memories_table).where(this).values(likeness=record.likeness(scope, memory)))
    return ids[-1] if len(ids) == limit else None


def says_the_same(one: IndexEntry, other: IndexEntry, least: float) -> bool:
    """Tell whether two texts say the same; all else of the two memories is not looked at."""
    if plain(one.memory.text) == plain(other.memory.text):
        return True
    if one.embedder != other.embedder or gist(one.memory.text) != gist(other.memory.text):
        return False
    return float(np.dot(one.vector, other.vector)) >= least
