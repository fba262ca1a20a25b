"""Writes memories that come from elsewhere with their history: ids and times stay, `ingested_at` is now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import numpy as np
from sqlalchemy import BigInteger, Connection, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import array, insert

from service import clock
from service.records import Change
from service.scope import Scope
from service.storage.encryption import Place
from service.storage.keyring import Keyring
from service.storage.outbox import enqueue, enqueue_again
from service.storage.places import LINE, lined_up
from service.storage.record import Record, memories_table, one_of
from service.storage.stored import IndexEntry, StoredMemory
from service.storage.superseding import Link, supersede
from service.storage.tables import HistoryRow

_history: Final[Any] = HistoryRow.__table__  # type: ignore[attr-defined]
_h: Final[Any] = _history.c
_m: Final[Any] = memories_table.c
#: From the first place of a line on, without gaps, so that an attempt that was cut short ends at the same places.
_MISPLACED: Final = text(
    "WITH line AS ("
    "  SELECT id, place, lag(place) OVER timely AS former, min(place) OVER () + row_number() OVER timely - 1 AS due"
    "   FROM memories WHERE place > :start AND place < :start + :line WINDOW timely AS (ORDER BY created_at, id))"
    " SELECT id, due FROM line"
    "  WHERE place <> due AND due < :start + :line AND EXISTS (SELECT FROM line WHERE former >= place)"
)
#: A memory under a legal hold keeps its place, as it keeps all the rest.
_MOVE: Final = text(
    "UPDATE memories m SET place = due.place"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(:places AS bigint[])) AS due (id, place)"
    " WHERE m.id = due.id AND hold_on(m.tenant_id, m.id, ARRAY[m.user_id, m.agent_id, m.app_id, m.run_id]) IS NULL"
    " RETURNING m.id, m.version"
)


@dataclass(frozen=True, slots=True)
class ArrivingHistory:
    """A step of a memory's life elsewhere; `content` has `old`, `new` and `metadata`, or is None."""

    id: UUID
    memory_id: UUID
    change: Change
    content: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Arrival:
    """A memory to be written as it is. `content` is what its release sealed, also what this one does not know.

    `links` are those that hold elsewhere, to it and from it; None where that is not told.
    """

    memory: StoredMemory
    content: Mapping[str, Any]
    vector: np.ndarray
    tokens: Sequence[int]
    history: Sequence[ArrivingHistory] = field(default_factory=tuple)
    links: Sequence[Link] | None = None


class Arriving:
    """Writes inside the caller's transaction, which has set the tenant."""

    def __init__(self, keyring: Keyring, record: Record) -> None:
        self._keyring = keyring
        self._record = record

    def known(self, connection: Connection, memory_ids: Sequence[UUID]) -> set[UUID]:
        """Return those of the ids that the tenant has."""
        return set(connection.execute(select(_m.id).where(one_of(_m.id, memory_ids))).scalars())

    def insert(
        self, connection: Connection, scope: Scope, arrivals: Sequence[Arrival], *, embedder: str
    ) -> tuple[list[IndexEntry], Counter[UUID]]:
        """Insert memories, with history and outbox rows; return what the index needs of those that are new here.

        Beside it, how many steps of each were written. An id that the tenant has is passed over, with its history. One
        that was deleted gets the texts of its history back, unless a hold keeps that as it is. Of two memories that are
        alike both are kept.
        """
        moment = clock.now()
        placed = lined_up(connection, [one.memory for one in arrivals])
        arrivals = [replace(one, memory=memory) for one, memory in zip(arrivals, placed, strict=True)]
        written = [one for one in arrivals if self._insert(connection, scope, one, embedder, moment)]
        rows = [self._history_row(scope, _columns(one.memory), step) for one in written for step in one.history]
        new = self._write(connection, rows)
        new |= self._refill(connection, [row for row in rows if row["id"] not in new and row["content"] is not None])
        steps = Counter({row["id"]: row["memory_id"] for row in rows if row["id"] in new}.values())
        enqueue(connection, scope, {one.memory.id: one.memory.version for one in written})
        self._record.joins.written(connection, scope, [one.memory for one in written])
        self._link(connection, scope, written)
        return [IndexEntry(one.memory, one.vector, embedder, one.tokens) for one in written], steps

    def lines(self, connection: Connection, memory_ids: Sequence[UUID], *, users: frozenset[UUID] | None) -> set[int]:
        """Return where the lines begin that those of the memories stand in which the tenant, or these users, have."""
        query = select(_m.place - _m.place % literal(LINE, BigInteger)).distinct()
        query = query.where(one_of(_m.id, memory_ids), _m.place.is_not(None))
        if users is not None:
            query = query.where(one_of(_m.user_id, list(users)))
        return set(connection.execute(query).scalars())

    def misplaced(self, connection: Connection, line: int) -> list[tuple[UUID, int]]:
        """Return the memories of a line that is not in the order of `created_at`, then id, with the place due to each.

        Those that stand where they should are left out; the line of which all do is answered with nothing.
        """
        rows = connection.execute(_MISPLACED, {"start": line, "line": LINE})
        return [(row.id, row.due) for row in rows]

    def move(self, connection: Connection, scope: Scope, places: Sequence[tuple[UUID, int]]) -> None:
        """Give memories other places in their line, and tell the outbox."""
        ids = [one for one, _ in places]
        # In one order with all who lock several.
        connection.execute(select(_m.id).where(one_of(_m.id, ids)).order_by(_m.id).with_for_update())
        rows = connection.execute(_MOVE, {"ids": ids, "places": [place for _, place in places]})
        enqueue_again(connection, scope, {row.id: row.version for row in rows})

    def insert_history(
        self, connection: Connection, scope: Scope, steps: Sequence[tuple[Mapping[str, UUID | None], ArrivingHistory]]
    ) -> int:
        """Insert steps of memories that are gone, each with the surrogates of its subjects by column; return how many.

        A step that is there already is passed over.
        """
        rows = [self._history_row(scope, columns, step) for columns, step in steps]
        return len(self._write(connection, rows))

    @staticmethod
    def _link(connection: Connection, scope: Scope, written: Sequence[Arrival]) -> None:
        """Link what is new here to what is there already, which the later of the two does."""
        links: dict[str, dict[UUID, set[UUID]]] = {}
        for one in written:
            told = one.links
            if told is None:
                told = [Link(older_id, one.memory.id, "changed") for older_id in one.memory.supersedes]
            for link in told:
                links.setdefault(link.kind, {}).setdefault(link.newer_id, set()).add(link.older_id)
        for kind, pairs in links.items():
            supersede(connection, scope, pairs, kind=kind, anew=False)

    def _insert(self, connection: Connection, scope: Scope, arrival: Arrival, embedder: str, moment: datetime) -> bool:
        memory = arrival.memory
        cipher = self._keyring.subject(scope.tenant_id, memory.owner_id)

        def place(column: str) -> Place:
            return Place(scope.tenant_id, "memories", memory.id, column)

        vector = np.asarray(arrival.vector, dtype="<f4").tobytes()
        values = {
            "tenant_id": scope.tenant_id,
            "id": memory.id,
            "version": memory.version,
            "owner_id": memory.owner_id,
            "user_id": memory.user_id,
            "agent_id": memory.agent_id,
            "app_id": memory.app_id,
            "run_id": memory.run_id,
            "content": cipher.seal_json(dict(arrival.content), place("content")),
            "vector": cipher.seal(vector, place("vector")),
            "embedder": embedder,
            "tokens": list(arrival.tokens),
            "identity_mac": self._record.identity(scope, memory),
            "likeness": self._record.likeness(scope, memory),
            "created_at": memory.created_at,
            "updated_at": memory.updated_at,
            "ingested_at": moment,
            "expires_on": memory.expires_on,
            "event_id": memory.event_id,
            "principal_id": memory.principal_id,
            "place": memory.place,
        }
        statement = insert(memories_table).on_conflict_do_nothing().returning(_m.id)
        if connection.execute(statement.values(**values)).scalar() is not None:
            return True
        # Its id is there, or a memory that is alike in all but its times: the second is kept, and found by its id only.
        return connection.execute(statement.values(**(values | {"identity_mac": None}))).scalar() is not None

    def _history_row(self, scope: Scope, columns: Mapping[str, Any], step: ArrivingHistory) -> dict[str, Any]:
        subjects = {name: columns.get(name) for name in ("user_id", "agent_id", "app_id", "run_id")}
        owner_id = next(one for one in subjects.values() if one is not None)
        content = None
        if step.content is not None:
            cipher = self._keyring.subject(scope.tenant_id, owner_id)
            content = cipher.seal_json(dict(step.content), Place(scope.tenant_id, "history", step.id, "content"))
        return {
            "tenant_id": scope.tenant_id,
            "id": step.id,
            "memory_id": step.memory_id,
            "owner_id": owner_id,
            **subjects,
            "change": step.change.value,
            "content": content,
            "created_at": step.created_at,
            "updated_at": step.updated_at,
        }

    @staticmethod
    def _write(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[UUID]:
        """Insert steps; return those that were not there."""
        if not rows:
            return set()
        statement = insert(_history).on_conflict_do_nothing(index_elements=["tenant_id", "id"]).returning(_h.id)
        return set(connection.execute(statement, list(rows)).scalars())

    @staticmethod
    def _refill(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[UUID]:
        """Write the content of steps that a deletion emptied; return those that it was."""
        of_memory = array([_h.user_id, _h.agent_id, _h.app_id, _h.run_id])
        filled = set[UUID]()
        for row in rows:
            same = [_h[name] == row[name] for name in ("tenant_id", "id", "memory_id", "owner_id", "change")]
            free = func.hold_on(_h.tenant_id, _h.memory_id, of_memory).is_(None)
            statement = update(_history).where(*same, _h.content.is_(None), free).values(content=row["content"])
            filled.update(connection.execute(statement.returning(_h.id)).scalars())
        return filled


def _columns(memory: StoredMemory) -> dict[str, UUID | None]:
    return {name: getattr(memory, name) for name in ("user_id", "agent_id", "app_id", "run_id")}
