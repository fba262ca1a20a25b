"""Declares that the database was restored to an earlier state, so that sealing goes on and every verifier is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from service.audit.checkpoints import Checkpoint, Statement
from service.audit.details import TrailRestored
from service.audit.events import AuditEvent
from service.audit.keeper import Keeper
from service.audit.ledger import Ledger, TrailChanged
from service.audit.signing import TrustedKeys
from service.audit.trail import Trail
from service.errors import Conflict
from service.scope import SYSTEM_TENANT, installation_caller
from service.storage.database import Database

#: The last place in the order that is known beside the seals: of rows that wait to be sealed, or that were streamed.
#: Between the oldest transaction that runs and the next one are those that others may still be at.
_ORDER: Final = text(
    "SELECT greatest((SELECT max(xid) FROM audit_due), (SELECT max(xid) FROM audit_stream_places), 0) AS known,"
    " audit_order(pg_snapshot_xmin(pg_current_snapshot())) AS oldest,"
    " audit_order(pg_snapshot_xmax(pg_current_snapshot())) AS next"
)
#: The checkpoints of older releases do not say how far the order had got.
_SEALED: Final = text("SELECT coalesce(max(last_xid), 0) FROM audit_seals")
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
        # Whether the order was taken up here, so that there is a restore to declare though nothing may be lost.
        self._taken_up = False

    def take_up(self, owner: Database | None) -> None:
        """Let the trail go on behind what is in it where the database counts its transactions anew, else do nothing.

        As after a restore from a dump. To be called before anything is written into the trail: what is written before
        stands among rows that were sealed long ago, and no seal takes it.

        Raises:
            Conflict: without `owner`, who alone may do it.
        """
        with self._database.tenant_blind() as connection:
            behind = _behind(connection, self._ledger)
        if behind == 0:
            return
        if owner is None:
            raise Conflict(
                "the database counts its transactions anew, as after a restore from a dump: database.owner_url is"
                " needed to go on, once: `memvault audit restored` with it, which in Compose is `docker compose run"
                " --rm restored` and in the chart an upgrade with restored.enabled=true"
            )
        self._advance(owner, behind)
        self._taken_up = True

    def declare(self, last: Checkpoint, owner: Database | None) -> Epoch:
        """Sign that the database went back, and go on behind `last`, the last checkpoint that was exported.

        `owner` is needed when the database counts its transactions anew, unless `take_up` was called.

        Raises:
            Conflict: when `last` is not genuine, or the database is not behind it.
        """
        if not self._trusted.accept(last.encoded, last.signatures):
            raise Conflict(f"checkpoint {last.body.number} is not signed by a key of this service")
        with self._database.tenant_blind() as connection:
            head = self._ledger.head(connection)
        resumes = 0 if head is None else head.body.number
        self.take_up(owner)
        if resumes >= last.body.number and not self._taken_up:
            raise Conflict(f"the database is at checkpoint {resumes} and not behind: there is nothing to declare")
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


def counts_anew(database: Database) -> bool:
    """Tell whether the database counts its transactions anew, so that nothing is to be written into its trail yet."""
    with database.tenant_blind() as connection:
        return _behind(connection, Ledger(database)) > 0


def _behind(connection: Connection, ledger: Ledger) -> int:
    """Return by how much the order is to be advanced; 0 where what comes next is behind all that is there."""
    try:
        head = ledger.head(connection)
    except TrailChanged:
        # Which sealing refuses, whatever the order is.
        return 0
    order = connection.execute(_ORDER).one()
    known = int(order.known)
    if head is not None:
        stood = head.body.cluster
        sealed = connection.execute(_SEALED).scalar_one() if stood is None else stood.horizon - 1
        known = max(known, int(sealed))
    # What was committed is before the next transaction of a database that counts on.
    return known + 1 - int(order.oldest) if known >= int(order.next) else 0
