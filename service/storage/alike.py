"""Finds what is about to be stored and is there already in other words that say the same: a near-duplicate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
from sqlalchemy import ARRAY, BigInteger, Connection, and_, any_, func, literal, or_, select, tuple_, update

from service import clock
from service.scope import Scope
from service.storage.record import Record, memories_table
from service.storage.stored import IndexEntry, StoredMemory
from service.storage.superseding import current
from service.storage.wording import gist, plain

#: Memories of one likeness, and of all that are added at once, that are looked at; behind them nothing is alike.
_MOST_EACH: Final = 20
_FEWEST: Final = 200
_m: Final[Any] = memories_table.c
#: What tells which of some memories a legal hold covers.
Held: TypeAlias = Callable[[Connection, Scope, Collection[UUID]], Collection[UUID]]


class Worded:
    """A memory with the forms of its text, each made once: a long text may be compared with hundreds of others."""

    def __init__(self, entry: IndexEntry) -> None:
        self.entry = entry

    @cached_property
    def plain(self) -> str:
        """See `wording.plain`."""
        return plain(self.entry.memory.text)

    @cached_property
    def gist(self) -> str:
        """See `wording.gist`; no word has a space in it."""
        return " ".join(gist(self.entry.memory.text))


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
    has the same gist with a cosine of `least` between the vectors, which must be of one model. Of several the one
    counts that stands for them: the first that nothing supersedes, else the newest.
    """
    likenesses = [record.likeness(scope, memory) for memory in memories]
    known: dict[int, list[Worded]] = defaultdict(list)
    most = max(_FEWEST, len(memories) * _MOST_EACH)
    for entry in record.likely(connection, scope, likenesses, most=most):
        known[record.likeness(scope, entry.memory)].append(Worded(entry))
    found: list[list[StoredMemory]] = []
    for memory, vector, likeness in zip(memories, vectors, likenesses, strict=True):
        one = Worded(IndexEntry(memory, vector, embedder, ()))
        found.append([other.entry.memory for other in known[likeness] if says_the_same(one, other, least)])
        if not found[-1]:
            known[likeness].append(one)
    several = {twin.id for twins in found if len(twins) > 1 for twin in twins}
    now = current(connection, list(several), clock.today()) if several else set()
    return [_standing(twins, now) for twins in found]


def repeated(connection: Connection, *, after: int | None, limit: int) -> list[int]:
    """Return likenesses that several memories of the tenant have, by their order."""
    query = select(_m.likeness).where(_m.likeness.is_not(None) if after is None else _m.likeness > after)
    query = query.group_by(_m.likeness).having(func.count() > 1).order_by(_m.likeness).limit(limit)
    return list(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class Seen:
    """How far likenesses were looked through: up to a memory, of whose likeness the newest is told as well."""

    likeness: int
    created_at: datetime
    id: UUID
    newest_id: UUID


def newest_first(
    record: Record, connection: Connection, scope: Scope, likenesses: Collection[int], *, seen: Seen | None, limit: int
) -> tuple[Sequence[Sequence[IndexEntry]], Seen | None]:
    """Return the next memories of these likenesses, each likeness from its newest on, and how far that is; None if all.

    Where a likeness goes on, its newest comes first again. They stay until this transaction ends. What cannot be
    opened is left out: it is alike to nothing.
    """
    wanted = _m.likeness == any_(literal(list(likenesses), ARRAY(BigInteger)))
    if seen is not None:
        older = tuple_(_m.created_at, _m.id) < tuple_(
            literal(seen.created_at, _m.created_at.type), literal(seen.id, _m.id.type)
        )
        rest = and_(_m.likeness == seen.likeness, or_(older, _m.id == seen.newest_id))
        wanted = and_(wanted, or_(_m.likeness > seen.likeness, rest))
    query = select(_m.id, _m.likeness, _m.created_at).where(wanted).limit(limit)
    query = query.order_by(_m.likeness, _m.created_at.desc(), _m.id.desc())
    rows = connection.execute(query.with_for_update(key_share=True, read=True)).all()
    entries = record.index_entries(connection, scope, [row.id for row in rows], unreadable={})
    groups: dict[int, list[IndexEntry]] = defaultdict(list)
    for row in rows:
        if row.id in entries:
            groups[row.likeness].append(entries[row.id])
    if len(rows) < limit:
        return list(groups.values()), None
    last = rows[-1]
    newest_id = next(row.id for row in rows if row.likeness == last.likeness)
    return list(groups.values()), Seen(last.likeness, last.created_at, last.id, newest_id)


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


def says_the_same(one: Worded, other: Worded, least: float) -> bool:
    """Tell whether two texts say the same; all else of the two memories is not looked at."""
    if one.plain == other.plain:
        return True
    mine, its = one.entry, other.entry
    # A model may come to give vectors of another size under the same name.
    if (mine.embedder, mine.vector.shape) != (its.embedder, its.vector.shape) or one.gist != other.gist:
        return False
    return float(np.dot(mine.vector, its.vector)) >= least


def _standing(twins: Sequence[StoredMemory], now: Collection[UUID]) -> StoredMemory | None:
    """Return which of some memories that say the same stands for them, if there is any; `now` are current ones."""
    newest = max(twins, key=lambda one: (one.created_at, one.id), default=None)
    return next((one for one in twins if one.id in now), newest)
