"""Puts together what seals the audit trail."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from service.audit.assembly import Sealing, open_sealing
from service.scope import SYSTEM_TENANT, TenantId

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
