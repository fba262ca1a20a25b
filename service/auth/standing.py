"""Whether a credential still stands, asked again in the transactions of what goes on after its call was let in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from service import clock
from service.audit.codes import Reason
from service.audit.trail import Trail
from service.auth.keys import find_live_key, permissions_of
from service.errors import Forbidden, InvalidToken, MemvaultError, Unauthenticated
from service.policy.table import NEEDS
from service.scope import SERVICE_ID, Action, Caller, Permission, PrincipalKind, Scope, TenantId
from service.storage.database import Database
from service.tenants.actions import is_active


class Lost(StrEnum):
    """What a credential has lost since its call was let in."""

    TENANT = "tenant_suspended"
    KEY = "key_revoked"
    PERMISSION = "permission_lost"


def find_lost(
    connection: Connection,
    tenant_id: TenantId,
    principal_id: UUID,
    kind: PrincipalKind,
    needed: Permission | None,
) -> tuple[Any | None, Lost | None]:
    """Return the row of a key as it is now and what it has lost, or None.

    A token cannot be asked about again: it is not kept, and its issuer tells no one what became of it. Only its tenant
    is looked at.
    """
    if not is_active(connection, tenant_id):
        return None, Lost.TENANT
    if kind is PrincipalKind.TOKEN:
        return None, None
    row = find_live_key(connection, principal_id)
    if row is None:
        return None, Lost.KEY
    if needed is not None and needed not in permissions_of(row.permissions):
        return row, Lost.PERMISSION
    return row, None


class Standing:
    """Asks again for what is answered in parts, each of which may be long after the gate let the call in."""

    def __init__(self, database: Database, trail: Trail, *, leeway: float) -> None:
        """Take the stores, and the seconds by which the clock of the tokens' issuer may differ from ours."""
        self._database = database
        self._trail = trail
        self._leeway = timedelta(seconds=leeway)

    @contextmanager
    def transaction(self, caller: Caller, scope: Scope, action: Action) -> Iterator[Connection]:
        """One transaction of the record, in which the caller may still take the action.

        The installation's own plane has no key that could end, and goes on for a tenant that is suspended.

        Raises:
            Unauthenticated: when the tenant was suspended or the key revoked, or it has expired; for an access token
                that has expired as InvalidToken. The refusal is in the trail by then, and nothing else was done.
            Forbidden: when the key has lost the permission meanwhile.
        """
        with self._database.transaction(scope) as connection:
            refusal = self._find_refusal(connection, caller, action)
            if refusal is None:
                yield connection
                return
        # After the block: the trail takes a connection of its own, and the pool may have no second one.
        reason, error = refusal
        self._trail.refuse(caller, action, reason)
        raise error

    def _find_refusal(
        self, connection: Connection, caller: Caller, action: Action
    ) -> tuple[Reason, MemvaultError] | None:
        principal = caller.principal
        if principal.id == SERVICE_ID:
            return None
        is_token = principal.kind is PrincipalKind.TOKEN
        if is_token and principal.expires_at is not None and principal.expires_at + self._leeway <= clock.now():
            return Reason.REVOKED, InvalidToken("the access token has expired: get a new one")
        needed = NEEDS.get(action)
        _, lost = find_lost(connection, principal.tenant_id, principal.id, principal.kind, needed)
        if lost is Lost.PERMISSION:
            return Reason.PERMISSION, Forbidden(f"this key may not do that any more: it lacks the permission {needed}")
        if lost is not None:
            return Reason.REVOKED, Unauthenticated("the credential is not valid any more")
        return None
