"""Refuses a keyring that is not the one of the record, before anything is served or written with it."""

from __future__ import annotations

import logging
from typing import Any, Final

from sqlalchemy import Connection, select, text

from service.errors import ConfigurationError, KeyringUnavailable
from service.scope import TenantId
from service.storage.keyring import KeyDestroyed, Keyring
from service.tenants.tables import TenantRow

_tenants: Final[Any] = TenantRow.__table__  # type: ignore[attr-defined]
#: Tenants whose keys are tried, the oldest first. A wrong keyring has none of them.
_TRIED: Final = 20
_log = logging.getLogger("memvault.keyring")


def check_keyring(connection: Connection, keyring: Keyring) -> None:
    """Try the keys of the first tenants; a database without a schema or without tenants belongs to any keyring.

    Raises:
        ConfigurationError: when none of them can be opened.
    """
    if not connection.execute(text("SELECT to_regclass('public.tenants') IS NOT NULL")).scalar_one():
        return
    first = select(_tenants.c.id).where(_tenants.c.status != "system").order_by(_tenants.c.created_at).limit(_TRIED)
    ids = [TenantId(one) for one in connection.execute(first).scalars()]
    missing = [one for one in ids if not _opens(keyring, one)]
    if not missing:
        return
    if len(missing) == len(ids):
        raise ConfigurationError(
            f"the keyring, {keyring.place}, is not the one of this database: it opens no tenant's key; "
            f"{keyring.remedy}, or name the right data_dir or keyring.url"
        )
    _log.error("the keyring lacks the keys of some tenants: restore it from its backup", extra={"count": len(missing)})


def _opens(keyring: Keyring, tenant_id: TenantId) -> bool:
    try:
        keyring.tenant_secret(tenant_id, "tenant-content")
    except KeyDestroyed:
        # Destroyed on purpose: it was in this keyring.
        return True
    except KeyringUnavailable:
        return False
    return True
