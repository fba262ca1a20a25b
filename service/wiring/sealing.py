"""Puts together what seals the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from service.audit.assembly import Sealing, open_sealing
from service.scope import SYSTEM_TENANT, TenantId
from service.storage.database import Database

if TYPE_CHECKING:
    from service.wiring import Installation


def seal_trail(installation: Installation) -> Sealing:
    """Return what seals the audit trail; nothing runs yet.

    Raises:
        ConfigurationError: when the signing key is missing, cannot be used or lies where the database does.
    """
    tenants = partial(audited_tenants, installation)
    return open_sealing(installation.settings, installation.database, installation.trail, tenants)


def audited_tenants(installation: Installation) -> list[TenantId]:
    """Return all tenants that have a trail, the service's own first."""
    return [SYSTEM_TENANT, *(tenant.id for tenant in installation.tenants.list())]


def trail_jobs(installation: Installation, sealing: Sealing) -> dict[str, tuple[str, Callable[[int], None]]]:
    """Return the periodic work on the trail: a checkpoint over every tenant, by one worker of all, and the daily drop
    of old parts, where a retention is set and there is a role that may drop.
    """

    def checkpoint(timestamp: int) -> None:
        sealing.keeper.checkpoint()

    jobs: dict[str, tuple[str, Callable[[int], None]]] = {"checkpoint": ("*/5 * * * *", checkpoint)}
    keep_days, dsn = installation.settings.audit.retention_days, installation.connections.maintenance_dsn
    if keep_days is None or dsn is None:
        return jobs

    def drop(timestamp: int) -> None:
        maintenance = Database(dsn, pool_size=2)
        try:
            sealing.old_parts.drop(audited_tenants(installation), keep_days, maintenance)
        finally:
            maintenance.close()

    return jobs | {"drop_old_audit": ("41 3 * * *", drop)}
