"""The outbox: which memories the index is behind for, across all tenants, by ids and versions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, func, select, text

from service.scope import TenantId
from service.storage.database import Database
from service.storage.tables import OutboxRow

_outbox: Final[Any] = OutboxRow.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Due:
    """A memory whose index point may be older than `version`."""

    row: int
    tenant_id: TenantId
    memory_id: UUID
    version: int


class Outbox:
    """Reads what is due and forgets what is done. Doing a row twice is harmless."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, limit: int, *, after: int = 0) -> Sequence[Due]:
        """Return the oldest rows beyond a row number."""
        query = select(_outbox).where(_outbox.c.id > after).order_by(_outbox.c.id).limit(limit)
        with self._database.tenant_blind() as connection:
            return [
                Due(row.id, TenantId(row.tenant_id), row.memory_id, row.version) for row in connection.execute(query)
            ]

    def done(self, rows: Sequence[int]) -> None:
        """Forget rows whose effect on the index is durable."""
        if not rows:
            return
        with self._database.tenant_blind() as connection:
            # Losing this delete in a crash only means doing the work again, so it need not wait for the disk.
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            connection.execute(delete(_outbox).where(_outbox.c.id.in_(list(rows))))

    def size(self) -> int:
        """Return how many rows wait."""
        with self._database.tenant_blind() as connection:
            return int(connection.execute(select(func.count()).select_from(_outbox)).scalar_one())
