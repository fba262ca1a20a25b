"""The outbox: which memories the index is behind for, across all tenants, by ids and versions only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Connection, any_, delete, func, insert, literal, select, text

from service import clock
from service.scope import Scope, TenantId
from service.storage.database import Database
from service.storage.pipelining import MAY_WAIT
from service.storage.tables import OutboxRow

_outbox: Final[Any] = OutboxRow.__table__  # type: ignore[attr-defined]
#: The version of a memory that will never be written again.
GONE: Final = 2**62


@dataclass(frozen=True, slots=True)
class Due:
    """A memory whose index point may be older than `version`."""

    row: int
    tenant_id: TenantId
    memory_id: UUID
    version: int
    since: datetime


def by_tenant(due: Sequence[Due]) -> Iterator[tuple[TenantId, list[Due]]]:
    """Yield what is due, tenant by tenant, that of each in the order given."""
    of_tenant = attrgetter("tenant_id")
    for tenant_id, rows in groupby(sorted(due, key=of_tenant), key=of_tenant):
        yield tenant_id, list(rows)


def enqueue(connection: Connection, scope: Scope, versions: Mapping[UUID, int]) -> None:
    """Note, inside the transaction that writes them, that the index is behind these versions of memories."""
    moment = clock.now()
    rows = [
        {"tenant_id": scope.tenant_id, "memory_id": one, "version": version, "created_at": moment}
        for one, version in versions.items()
    ]
    if rows:
        # Inline: nobody asks for the number that the row gets.
        connection.execute(insert(_outbox).inline(), rows, execution_options=MAY_WAIT)


def enqueue_again(connection: Connection, scope: Scope, versions: Mapping[UUID, int]) -> None:
    """Note that the index is to write these versions of memories once more, whether it has them or not."""
    # Nothing can have applied a version that is still to come.
    enqueue(connection, scope, {one: version + 1 for one, version in versions.items()})


class Outbox:
    """Reads what is due and forgets what is done. Doing a row twice is harmless."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, limit: int, *, after: int = 0) -> Sequence[Due]:
        """Return the oldest rows beyond a row number."""
        query = select(_outbox).where(_outbox.c.id > after).order_by(_outbox.c.id).limit(limit)
        with self._database.tenant_blind() as connection:
            return [
                Due(row.id, TenantId(row.tenant_id), row.memory_id, row.version, row.created_at)
                for row in connection.execute(query)
            ]

    def done(self, rows: Sequence[int]) -> None:
        """Forget rows whose effect on the index is durable."""
        if not rows:
            return
        with self._database.tenant_blind() as connection:
            # Losing this delete in a crash only means doing the work again, so it need not wait for the disk.
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            # One parameter, however many there are: a statement takes 65,535 of them.
            connection.execute(delete(_outbox).where(_outbox.c.id == any_(literal(list(rows), ARRAY(BigInteger)))))

    def standing(self, connection: Connection) -> tuple[int, datetime | None]:
        """Return how many rows wait, and since when the oldest does."""
        count, oldest = connection.execute(select(func.count(), func.min(_outbox.c.created_at))).one()
        return int(count), oldest

    def size(self) -> int:
        """Return how many rows wait."""
        with self._database.tenant_blind() as connection:
            return int(connection.execute(select(func.count()).select_from(_outbox)).scalar_one())
