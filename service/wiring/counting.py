"""Counts what an installation holds, for commands and metrics."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from service.scope import Scope, TenantId, service_principal
from service.storage.outbox import Outbox

if TYPE_CHECKING:
    from service.wiring import Installation


def count_memories(installation: Installation) -> int:
    """Return how many memories all tenants have together."""
    record = installation.record
    total = 0
    for tenant in installation.tenants.list():
        with installation.database.transaction(Scope.of(service_principal(tenant.id))) as connection:
            total += record.count(connection)
    return total


def count_memories_of(installation: Installation, tenant_id: TenantId) -> int:
    """Return how many memories a tenant has."""
    with installation.database.transaction(Scope.of(service_principal(tenant_id))) as connection:
        return installation.record.count(connection)


def outbox_standing(installation: Installation, connection: Connection) -> tuple[int, datetime | None]:
    """Return how many changes wait for the index, and since when."""
    return Outbox(installation.database).standing(connection)
