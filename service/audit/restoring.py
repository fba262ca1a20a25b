"""Declares that the database was restored to an earlier state, so that sealing goes on and every verifier is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from service.audit.checkpoints import Checkpoint, Statement
from service.audit.details import TrailRestored
from service.audit.events import AuditEvent
from service.audit.keeper import Keeper
from service.audit.ledger import Ledger
from service.audit.signing import TrustedKeys
from service.audit.trail import Trail
from service.errors import Conflict
from service.scope import SYSTEM_TENANT, installation_caller
from service.storage.database import Database

_BEHIND: Final = text(
    "SELECT coalesce(max(last_xid), 0) + 1 - audit_order(pg_snapshot_xmin(pg_current_snapshot())) FROM audit_seals"
)
#: The body of the function that orders the trail is what the owner may replace; the number is an integer of ours.
_ADVANCE: Final = (
    "CREATE OR REPLACE FUNCTION audit_order(xid8) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE"
    " AS $$ SELECT $1::text::bigint + {offset} $$"
)


@dataclass(frozen=True, slots=True)
class Epoch:
    """A declared restore: the checkpoint that says so, the one that the database went back to, the last void one."""

    checkpoint: Checkpoint
    resumes: int
    last: int


class Restoring:
    """Declares restores."""

    def __init__(self, database: Database, ledger: Ledger, trail: Trail, keeper: Keeper, trusted: TrustedKeys) -> None:
        self._database = database
        self._ledger = ledger
        self._trail = trail
        self._keeper = keeper
        self._trusted = trusted

    def declare(self, last: Checkpoint, owner: Database | None) -> Epoch:
        """Sign that the database went back, and go on behind `last`, the last checkpoint that was exported.

        `owner` is needed when the database counts its transactions anew, as after a restore from a dump.

        Raises:
            Conflict: when `last` is not genuine, or the database is not behind it.
        """
        if not self._trusted.accept(last.encoded, last.signatures):
            raise Conflict(f"checkpoint {last.body.number} is not signed by a key of this service")
        with self._database.tenant_blind() as connection:
            head = self._ledger.head(connection)
            behind = int(connection.execute(_BEHIND).scalar_one())
        resumes = 0 if head is None else head.body.number
        if resumes >= last.body.number and behind <= 0:
            raise Conflict(f"the database is at checkpoint {resumes} and not behind: there is nothing to declare")
        if behind > 0:
            if owner is None:
                raise Conflict(
                    "the database counts its transactions anew, as after a restore from a dump: database.owner_url is"
                    " needed to go on, once: `memvault audit restored` with it, which in Compose is `docker compose run"
                    " --rm restored` and in the chart an upgrade with restored.enabled=true"
                )
            self._advance(owner, behind)
        caller = installation_caller(SYSTEM_TENANT)
        with self._database.transaction(caller.scope) as connection:
            detail = TrailRestored(resumes=resumes, last=last.body.number)
            self._trail.write(connection, caller, AuditEvent.TRAIL_RESTORED, detail=detail)
        after = last if last.body.number >= resumes else head
        checkpoint = self._keeper.declare([Statement(Statement.RESTORED, resumes=resumes)], after=after)
        self._keeper.deliver()
        return Epoch(checkpoint, resumes, last.body.number)

    @staticmethod
    def _advance(owner: Database, behind: int) -> None:
        with owner.tenant_blind() as connection:
            present = connection.execute(
                text(
                    "SELECT (regexp_match(prosrc, '\\+ (\\d+)'))[1]::bigint FROM pg_proc WHERE proname = 'audit_order'"
                )
            ).scalar_one()
            connection.exec_driver_sql(_ADVANCE.format(offset=int(present) + behind))
