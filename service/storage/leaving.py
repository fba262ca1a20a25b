"""Reads memories and their history as they are stored, opened, in the order of their ids: what an export is made of."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, exists, or_, select

from service.scope import Scope
from service.storage.encryption import Place
from service.storage.keyring import KeyDestroyed, KeyLost, Keyring
from service.storage.record import memories_table, one_of
from service.storage.tables import HistoryRow

_log: Final = logging.getLogger("memvault.portability")
_history: Final[Any] = HistoryRow.__table__  # type: ignore[attr-defined]
_m: Final[Any] = memories_table.c
_h: Final[Any] = _history.c
_COLUMNS: Final = tuple(
    column for column in memories_table.columns if column.name not in ("vector", "tokens", "identity_mac", "likeness")
)


@dataclass(frozen=True, slots=True)
class LeavingMemory:
    """A memory with its content as it was sealed, so that nothing is lost that a later release keeps in it."""

    id: UUID
    version: int
    subject_ids: tuple[UUID, ...]
    content: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ingested_at: datetime
    expires_on: date | None
    event_id: UUID | None
    principal_id: UUID | None


@dataclass(frozen=True, slots=True)
class LeavingHistory:
    """A step of a memory's life; `content` is None where the memory was deleted."""

    id: UUID
    seq: int
    memory_id: UUID
    subject_ids: tuple[UUID, ...]
    change: str
    content: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class Leaving:
    """Reads inside the caller's transaction, which has set the tenant.

    What was erased is left out, and with an error in the log what cannot be opened since its key is lost.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def memories(
        self,
        connection: Connection,
        scope: Scope,
        where: ColumnElement[bool],
        *,
        users: frozenset[UUID] | None,
        after: UUID | None,
        limit: int,
    ) -> tuple[list[LeavingMemory], UUID | None]:
        """Return the next memories by id, expired ones too, and the id to go on after, None at the end."""
        query = select(*_COLUMNS).where(where).order_by(_m.id).limit(limit)
        if users is not None:
            query = query.where(_m.user_id.in_(list(users)))
        if after is not None:
            query = query.where(_m.id > after)
        rows = connection.execute(query).all()
        found = []
        for row in rows:
            content = self._open(scope, "memories", row.id, row.owner_id, row.content)
            if content is not None:
                found.append(
                    LeavingMemory(
                        id=row.id,
                        version=row.version,
                        subject_ids=_subjects(row),
                        content=content,
                        created_at=row.created_at,
                        updated_at=row.updated_at,
                        ingested_at=row.ingested_at,
                        expires_on=row.expires_on,
                        event_id=row.event_id,
                        principal_id=row.principal_id,
                    )
                )
        return found, rows[-1].id if len(rows) == limit else None

    def history(self, connection: Connection, scope: Scope, memory_ids: Sequence[UUID]) -> list[LeavingHistory]:
        """Return the history of these memories, the oldest step first, without that of who had their ids before."""
        query = select(_history).where(one_of(_h.memory_id, memory_ids), _of_its_memory()).order_by(_h.seq)
        return self._opened(scope, connection.execute(query))

    def history_of_deleted(
        self, connection: Connection, scope: Scope, subject_ids: Sequence[UUID] | None, *, after: int, limit: int
    ) -> tuple[list[LeavingHistory], int | None]:
        """Return the next steps of memories that are gone, of these subjects or of all, and where to go on.

        Gone is a memory too whose id has come to be another's.
        """
        query = select(_history).where(~_of_its_memory(), _h.seq > after).order_by(_h.seq).limit(limit)
        if subject_ids is not None:
            query = query.where(_of_any(subject_ids))
        rows = connection.execute(query).all()
        return self._opened(scope, rows), rows[-1].seq if len(rows) == limit else None

    def seq_of(self, connection: Connection, subject_ids: Sequence[UUID] | None, step_id: UUID) -> int | None:
        """Return where a step of these subjects, or of all, stands among all steps; None if it is not there."""
        query = select(_h.seq).where(_h.id == step_id)
        if subject_ids is not None:
            query = query.where(_of_any(subject_ids))
        return connection.execute(query).scalar()

    def _opened(self, scope: Scope, rows: Iterable[Any]) -> list[LeavingHistory]:
        return [
            LeavingHistory(
                id=row.id,
                seq=row.seq,
                memory_id=row.memory_id,
                subject_ids=_subjects(row),
                change=row.change,
                content=self._open(scope, "history", row.id, row.owner_id, row.content),
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
            for row in rows
        ]

    def _open(
        self, scope: Scope, table: str, row_id: UUID, owner_id: UUID, sealed: bytes | None
    ) -> dict[str, Any] | None:
        if sealed is None:
            return None
        try:
            cipher = self._keyring.subject(scope.tenant_id, owner_id)
        except KeyDestroyed:
            return None
        except KeyLost:
            _log.error("what is exported lacks what cannot be opened: its key is lost", extra={"id": str(row_id)})
            return None
        content: dict[str, Any] = cipher.open_json(sealed, Place(scope.tenant_id, table, row_id, "content"))
        return content


def _subjects(row: Any) -> tuple[UUID, ...]:
    return tuple(one for one in (row.user_id, row.agent_id, row.app_id, row.run_id) if one is not None)


def _of_its_memory() -> ColumnElement[bool]:
    """Return the condition that a step's memory is there and of the same subjects."""
    same = (_m[name].is_not_distinct_from(_h[name]) for name in ("user_id", "agent_id", "app_id", "run_id"))
    return exists().where(_m.id == _h.memory_id, *same)


def _of_any(subject_ids: Sequence[UUID]) -> ColumnElement[bool]:
    columns = (_h.owner_id, _h.user_id, _h.agent_id, _h.app_id, _h.run_id)
    return or_(*(one_of(column, subject_ids) for column in columns))
