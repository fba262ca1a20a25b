"""Memories that wait for a reviewer: sealed like the record's, in a table of their own that no other read looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from service import clock
from service.scope import Scope
from service.storage.encryption import Place
from service.storage.keyring import KeyDestroyed, Keyring
from service.storage.record import Record, one_of
from service.storage.stored import Slice, StoredMemory, content_of, memory_of
from service.storage.tables import QuarantineRow

quarantine_table: Final[Any] = QuarantineRow.__table__  # type: ignore[attr-defined]
_q: Final[Any] = quarantine_table.c


@dataclass(frozen=True, slots=True)
class Waiting:
    """A memory in quarantine, with what it needs to become one of the record."""

    memory: StoredMemory
    vector: np.ndarray
    embedder: str
    tokens: Sequence[int]
    since: datetime


class Quarantine:
    """Keeps memories apart until they are decided on. Every method works inside the caller's transaction."""

    def __init__(self, keyring: Keyring, record: Record) -> None:
        self._keyring = keyring
        self._record = record

    def put(
        self,
        connection: Connection,
        scope: Scope,
        memories: Sequence[StoredMemory],
        vectors: Sequence[np.ndarray],
        tokens: Sequence[Sequence[int]],
        *,
        embedder: str,
    ) -> dict[UUID, UUID]:
        """Put memories into quarantine; return, by the id asked for, the id under which it waits.

        One that waits there already (alike in all but its times) is not kept twice.
        """
        moment = clock.now()
        placed: dict[UUID, UUID] = {}
        for memory, vector, own in zip(memories, vectors, tokens, strict=True):
            cipher = self._keyring.subject(scope.tenant_id, memory.owner_id)
            mac = self._record.identity(scope, memory)
            values = {
                "tenant_id": scope.tenant_id,
                "id": memory.id,
                "version": memory.version,
                "owner_id": memory.owner_id,
                "user_id": memory.user_id,
                "agent_id": memory.agent_id,
                "app_id": memory.app_id,
                "run_id": memory.run_id,
                "content": cipher.seal_json(content_of(memory), _place(scope, memory.id, "content")),
                "vector": cipher.seal(np.asarray(vector, dtype="<f4").tobytes(), _place(scope, memory.id, "vector")),
                "embedder": embedder,
                "tokens": list(own),
                "identity_mac": mac,
                "created_at": memory.created_at,
                "updated_at": memory.updated_at,
                "quarantined_at": moment,
                "expires_on": memory.expires_on,
                "event_id": memory.event_id,
                "principal_id": memory.principal_id,
            }
            statement = insert(quarantine_table).values(**values)
            # The update changes nothing; with it the row that is there already is locked, and told.
            same = statement.on_conflict_do_update(constraint="quarantine_identity", set_={"version": _q.version})
            placed[memory.id] = connection.execute(same.returning(_q.id)).scalar_one()
        return placed

    def find(
        self,
        connection: Connection,
        scope: Scope,
        ids: Sequence[UUID],
        *,
        users: frozenset[UUID] | None,
        on: date | None,
        lock: bool = False,
    ) -> dict[UUID, Waiting]:
        """Return those that wait and that the scope reaches, expired ones left out when a day is given."""
        query = select(quarantine_table).where(one_of(_q.id, list(ids)), *_reach(users, on)).order_by(_q.id)
        if lock:
            query = query.with_for_update()
        return {one.memory.id: one for one in self._opened(scope, connection.execute(query))}

    def size(self, connection: Connection) -> int:
        """Return how many memories of the tenant wait for a reviewer."""
        return int(connection.execute(select(func.count()).select_from(quarantine_table)).scalar_one())

    def page(
        self,
        connection: Connection,
        scope: Scope,
        where: ColumnElement[bool],
        part: Slice,
        *,
        users: frozenset[UUID] | None,
        on: date | None,
    ) -> tuple[list[Waiting], int]:
        """Return one slice of those that match, the one that waits longest first, and how many match in all."""
        matching = and_(where, *_reach(users, on))
        total = connection.execute(select(func.count()).select_from(quarantine_table).where(matching)).scalar_one()
        query = select(quarantine_table).where(matching).order_by(_q.quarantined_at, _q.id)
        rows = connection.execute(query.offset(part.skip).limit(part.size))
        return list(self._opened(scope, rows)), int(total)

    def ids(
        self, connection: Connection, where: ColumnElement[bool], *, users: frozenset[UUID] | None
    ) -> dict[UUID, list[UUID]]:
        """Return the ids of all that match, expired or not, each with its subjects, and lock them."""
        query = select(_q.id, _q.user_id, _q.agent_id, _q.app_id, _q.run_id).where(where, *_reach(users, None))
        rows = connection.execute(query.order_by(_q.id).with_for_update())
        return {row.id: [one for one in row[1:] if one is not None] for row in rows}

    def expired(self, connection: Connection, on: date, *, after: UUID | None, limit: int) -> dict[UUID, list[UUID]]:
        """Return the next that are past their last visible day, by id, each with its subjects, and lock them."""
        query = select(_q.id, _q.user_id, _q.agent_id, _q.app_id, _q.run_id).where(_past_last_day(on))
        if after is not None:
            query = query.where(_q.id > after)
        rows = connection.execute(query.order_by(_q.id).limit(limit).with_for_update(skip_locked=True))
        return {row.id: [one for one in row[1:] if one is not None] for row in rows}

    def remove(self, connection: Connection, ids: Iterable[UUID]) -> None:
        """Remove rows from quarantine."""
        connection.execute(delete(quarantine_table).where(one_of(_q.id, list(ids))))

    def _opened(self, scope: Scope, rows: Iterable[Any]) -> Iterator[Waiting]:
        for row in rows:
            try:
                cipher = self._keyring.subject(scope.tenant_id, row.owner_id)
            except KeyDestroyed:
                # Erased, with the row still to be removed.
                continue
            content = cipher.open_json(row.content, _place(scope, row.id, "content"))
            vector = np.frombuffer(cipher.open(row.vector, _place(scope, row.id, "vector")), dtype="<f4")
            yield Waiting(memory_of(row, content), vector, row.embedder, row.tokens, row.quarantined_at)


def any_expired(on: date) -> ColumnElement[bool]:
    """Return the condition that something of the tenant in quarantine is past its last visible day."""
    return exists().where(_past_last_day(on))


def _past_last_day(on: date) -> ColumnElement[bool]:
    past: ColumnElement[bool] = _q.expires_on < on
    return past


def _reach(users: frozenset[UUID] | None, on: date | None) -> list[ColumnElement[bool]]:
    clauses: list[ColumnElement[bool]] = []
    if users is not None:
        clauses.append(_q.user_id.in_(list(users)))
    if on is not None:
        clauses.append(or_(_q.expires_on.is_(None), _q.expires_on >= on))
    return clauses


def _place(scope: Scope, row_id: UUID, column: str) -> Place:
    return Place(scope.tenant_id, "quarantine", row_id, column)
