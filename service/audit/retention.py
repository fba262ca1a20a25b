"""Retention of the trail itself: drops parts that are older than the setting, never below the floor, and says so.

A part ends where a checkpoint older than the setting ended, so what stays can be verified from what that checkpoint
signed. The drop is declared first, in the tenant's trail and in a signed checkpoint, and done after, by the maintenance
role, through a function of the database that knows the floor too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from service import clock
from service.audit.checkpoints import Statement
from service.audit.details import TrailDropped
from service.audit.events import AuditEvent
from service.audit.keeper import Keeper
from service.audit.ledger import Ledger, Tip
from service.audit.trail import Trail
from service.errors import ConfigurationError, Conflict
from service.scope import TenantId, installation_caller
from service.settings import AUDIT_FLOOR_DAYS
from service.storage.database import Database

_DROP: Final = text("SELECT audit_drop(:tenant, :size, :xid, :seq, :peaks, :days)")


@dataclass(frozen=True, slots=True)
class OldPart:
    """Rows of a tenant that are, or would be, dropped: how many now, and how many since the trail began."""

    tenant_id: TenantId
    rows: int
    size: int


class OldParts:
    """Finds and drops what is older than the setting."""

    def __init__(self, database: Database, ledger: Ledger, trail: Trail, keeper: Keeper) -> None:
        self._database = database
        self._ledger = ledger
        self._trail = trail
        self._keeper = keeper

    def find(self, tenants: Sequence[TenantId], keep_days: int) -> list[OldPart]:
        """Return what `drop` would drop.

        Raises:
            ConfigurationError: for less than the floor.
        """
        return [part for part, _ in self._find(tenants, keep_days)]

    def drop(self, tenants: Sequence[TenantId], keep_days: int, maintenance: Database) -> list[OldPart]:
        """Declare and drop the old parts, and return them.

        Raises:
            ConfigurationError: for less than the floor.
            Conflict: when the declaration cannot be signed now, or has not reached every sink; nothing was dropped.
                Nor is anything declared while a sink is known to take nothing.
        """
        found = self._find(tenants, keep_days)
        if not found:
            return []
        self._keeper.deliver()
        if self._keeper.late:
            raise Conflict("a place for checkpoints takes none at present; nothing was declared or dropped")
        statements = []
        for part, _ in found:
            caller = installation_caller(part.tenant_id)
            with self._database.transaction(caller.scope) as connection:
                detail = TrailDropped(rows=part.rows, keep_days=keep_days)
                self._trail.write(connection, caller, AuditEvent.TRAIL_DROPPED, detail=detail)
            statements.append(
                Statement(Statement.DROPPED, tenant_id=part.tenant_id, size=part.size, keep_days=keep_days)
            )
        number = self._keeper.declare(statements).body.number
        late = [name for name, reached in self._keeper.deliver().items() if reached < number]
        if late or self._keeper.late:
            raise Conflict("the declaration has not reached every place for checkpoints yet; nothing was dropped")
        for part, tip in found:
            with maintenance.tenant_blind() as connection:
                place = {"tenant": part.tenant_id, "size": tip.size, "xid": tip.last_xid, "seq": tip.last_seq}
                connection.execute(_DROP, {**place, "peaks": tip.peaks, "days": keep_days})
        return [part for part, _ in found]

    def _find(self, tenants: Sequence[TenantId], keep_days: int) -> list[tuple[OldPart, Tip]]:
        if keep_days < AUDIT_FLOOR_DAYS:
            raise ConfigurationError(
                f"audit.retention_days: must be {AUDIT_FLOOR_DAYS} or more: the trail is kept for six months at least"
            )
        # The database, which drops, judges by its own clock. What it refused would be declared all the same.
        before = min(clock.now(), self._ledger.now()) - timedelta(days=keep_days)
        drops = self._ledger.drops()
        found = []
        for tenant_id in tenants:
            newest = self._ledger.newest_seal_before(tenant_id, before)
            dropped = drops[tenant_id].size if tenant_id in drops else 0
            if newest is not None and newest.size > dropped:
                found.append((OldPart(tenant_id, newest.size - dropped, newest.size), newest))
        return found
