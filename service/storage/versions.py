"""Which memories there are and in which version, without opening any: what the index is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, select

from service.storage.record import memories_table, one_of

_m: Final[Any] = memories_table.c


def versions(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, int]:
    """Return those of the ids that are memories of the transaction's tenant, with the version of each."""
    query = select(_m.id, _m.version).where(one_of(_m.id, list(ids)))
    return {row.id: row.version for row in connection.execute(query)}


def versions_after(connection: Connection, after: UUID | None, *, limit: int) -> dict[UUID, int]:
    """Return the tenant's next memories by id, with the version of each; fewer than `limit` at the end."""
    query = select(_m.id, _m.version).order_by(_m.id).limit(limit)
    if after is not None:
        query = query.where(_m.id > after)
    return {row.id: row.version for row in connection.execute(query)}
