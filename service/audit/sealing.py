"""Seals the trail: takes the rows that are final into the trees of their tenants and signs a checkpoint over them all.

One sealer works at a time, whichever process it is in. A row is final once every transaction that could come before it
has ended, so rows that commit late are neither lost nor put in between. What was signed is remembered in the process
and checked against the database at the start: a database that was changed behind the sealer's back is not signed over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from service import clock
from service.audit.checkpoints import (
    NO_HASH,
    Body,
    Checkpoint,
    Cluster,
    Seal,
    Statement,
    row_entry,
    seals_digest,
)
from service.audit.encoding import LINE, ORDER
from service.audit.ledger import Ledger, Tip, TrailChanged
from service.audit.merkle import EMPTY_ROOT, Frontier, TenantsTree, leaf_hash, tenant_leaf
from service.audit.signing import Signer, TrustedKeys
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database

_log = logging.getLogger("memvault.audit")

_LOCK: Final = 0x6D7673_65616C  # 'mvseal': one sealer at a time
_TRY_LOCK: Final = text("SELECT pg_try_advisory_xact_lock(:lock)")
_NOTES_A_ROUND: Final = 50_000
#: Rows of one tenant in one seal; a tenant with more goes on in the next round.
_ROWS_A_SEAL: Final = 20_000
_NEW_ROWS: Final = text(
    f"SELECT {LINE} AS line, id, xid, seq FROM audit"
    " WHERE (xid, seq) > (:xid, :seq) AND xid < :horizon"
    f" ORDER BY {ORDER} LIMIT :limit"
)


@dataclass(slots=True)
class _Head:
    """What the last checkpoint says, with the trees to continue."""

    checkpoint: Checkpoint | None = None
    tips: dict[UUID, Tip] = field(default_factory=dict)
    tree: TenantsTree = field(default_factory=TenantsTree)
    rows: int = 0
    last_xid: int = 0

    @property
    def number(self) -> int:
        return 0 if self.checkpoint is None else self.checkpoint.body.number


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a round did. `more` says that rows are left for the next."""

    checkpoint: Checkpoint | None
    rows: int = 0
    more: bool = False


class Sealer:
    """Makes checkpoints, one a round when there is something to seal."""

    def __init__(self, database: Database, ledger: Ledger, signer: Signer, trusted: TrustedKeys) -> None:
        self._database = database
        self._ledger = ledger
        self._signer = signer
        self._trusted = trusted
        self._lock = threading.Lock()
        self._head: _Head | None = None
        # Kept through every failure: what this process saw signed is never forgotten while it lives.
        self._last: Checkpoint | None = None

    def seal(
        self, *, also: Iterable[TenantId] = (), statements: Sequence[Statement] = (), after: Checkpoint | None = None
    ) -> Sealed:
        """Seal what is final and return the new checkpoint, if there is one.

        `also` names tenants to look at besides those that are known to have new rows. With statements a checkpoint is
        made in any case. `after` is the checkpoint that a restored database goes on from: the last one signed before.

        Raises:
            TrailChanged: when the database does not hold what was signed.
            RecordUnavailable: when Postgres is away; nothing was done.
        """
        with self._lock:
            try:
                with self._database.tenant_blind() as connection:
                    if not connection.execute(_TRY_LOCK, {"lock": _LOCK}).scalar_one():
                        return Sealed(None, more=True)
                    sealed, tips = self._seal(connection, set(also), tuple(statements), after)
                self._remember(sealed, tips)
                return sealed
            except BaseException:
                # What the trees hold may be ahead of what was committed.
                self._head = None
                raise

    def _seal(
        self,
        connection: Connection,
        also: set[TenantId],
        statements: tuple[Statement, ...],
        after: Checkpoint | None,
    ) -> tuple[Sealed, Sequence[Tip]]:
        horizon = self._ledger.horizon(connection)
        head = self._current(connection, after_restore=after is not None)
        if 0 < head.last_xid >= horizon:
            raise TrailChanged(
                "the database counts its transactions anew, as after a restore from a dump: run `memvault audit"
                " restored`"
            )
        due = self._ledger.due(connection, horizon, _NOTES_A_ROUND)
        tips, seals, unfinished = list[Tip](), list[Seal](), set[UUID]()
        for tenant_id in sorted({TenantId(one.tenant_id) for one in due} | also):
            found = self._seal_tenant(tenant_id, head, horizon, new=len(head.tree) + _new(seals, head))
            if found is None:
                continue
            seal, tip = found
            seals.append(seal)
            tips.append(tip)
            if seal.size - seal.first >= _ROWS_A_SEAL:
                unfinished.add(tenant_id)
        done = [one.note for one in due if one.tenant_id not in unfinished]
        more = bool(unfinished) or len(due) >= _NOTES_A_ROUND
        if not seals and not statements:
            self._ledger.forget_due(connection, done)
            return Sealed(None, more=more), ()
        order = sorted(range(len(seals)), key=lambda index: seals[index].ordinal)
        seals, tips = [seals[index] for index in order], [tips[index] for index in order]
        for seal in seals:
            head.tree.put(seal.ordinal, tenant_leaf(seal.tenant_id, seal.size, seal.root))
        rows = sum(seal.size - seal.first for seal in seals)
        cluster = self._ledger.cluster(connection, horizon)
        checkpoint = self._signed(head, seals, statements, rows, after, cluster)
        self._ledger.add(connection, checkpoint, tips)
        self._ledger.forget_due(connection, done)
        return Sealed(checkpoint, rows, more), tips

    def _remember(self, sealed: Sealed, tips: Sequence[Tip]) -> None:
        """Take what was committed as the head."""
        head = self._head
        if head is None or sealed.checkpoint is None:
            return
        head.checkpoint = self._last = sealed.checkpoint
        head.rows += sealed.rows
        head.tips.update((tip.tenant_id, tip) for tip in tips)
        head.last_xid = max([head.last_xid, *(tip.last_xid for tip in tips)])

    def _seal_tenant(self, tenant_id: TenantId, head: _Head, horizon: int, new: int) -> tuple[Seal, Tip] | None:
        tip = head.tips.get(tenant_id)
        place = (-1, 0) if tip is None else (tip.last_xid, tip.last_seq)
        with self._database.transaction(Scope.of(service_principal(tenant_id))) as connection:
            rows = connection.execute(
                _NEW_ROWS, {"xid": place[0], "seq": place[1], "horizon": horizon, "limit": _ROWS_A_SEAL}
            ).all()
        if not rows:
            return None
        frontier = Frontier() if tip is None else tip.frontier()
        first, entries = frontier.size, list[bytes]()
        for line, row_id, _, _ in rows:
            leaf = leaf_hash(line.encode())
            frontier.append(leaf)
            entries.append(row_entry(row_id, leaf))
        ordinal = new if tip is None else tip.ordinal
        root = frontier.root()
        seal = Seal(tenant_id, ordinal, first, frontier.size, root, b"".join(entries))
        return seal, Tip(tenant_id, ordinal, frontier.size, root, frontier.peaks(), rows[-1].xid, rows[-1].seq)

    def _signed(
        self,
        head: _Head,
        seals: Sequence[Seal],
        statements: tuple[Statement, ...],
        rows: int,
        after: Checkpoint | None,
        cluster: Cluster,
    ) -> Checkpoint:
        before = after or head.checkpoint
        body = Body(
            installation=clock.new_random_id() if before is None else before.body.installation,
            number=1 if before is None else before.body.number + 1,
            at=clock.now(),
            previous=NO_HASH if before is None else before.hash,
            tenants=len(head.tree),
            tenants_root=head.tree.root(),
            rows=head.rows + rows,
            seals=seals_digest(seals),
            statements=statements,
            cluster=cluster,
        )
        encoded = body.encoded()
        return Checkpoint(body, encoded, self._signer.sign(encoded), tuple(seals))

    def _current(self, connection: Connection, *, after_restore: bool) -> _Head:
        """Return the head: the one in memory unless another process has sealed since, else read and checked."""
        stored = self._ledger.head(connection)
        if not after_restore:
            self._compare(stored)
        if self._head is None or self._head.number != (0 if stored is None else stored.body.number):
            self._head = self._read(connection, stored)
        self._last = self._head.checkpoint
        return self._head

    def _compare(self, stored: Checkpoint | None) -> None:
        """Refuse a database that has lost or changed a checkpoint that this process knows."""
        last = self._last
        if last is None:
            return
        number = last.body.number
        if stored is None or stored.body.number < number:
            raise TrailChanged(f"checkpoint {number} is gone from the database")
        known = stored if stored.body.number == number else self._ledger.find(number)
        if known is None or known.hash != last.hash:
            raise TrailChanged(f"checkpoint {number} in the database is not what was signed")

    def _read(self, connection: Connection, stored: Checkpoint | None) -> _Head:
        head = _Head(checkpoint=stored)
        if stored is None:
            return head
        if not self._trusted.accept(stored.encoded, stored.signatures):
            raise TrailChanged(
                f"checkpoint {stored.body.number} in the database is not signed by a key of this service"
            )
        try:
            for tip in self._ledger.tips(connection, stored.body.number):
                if tip.frontier().root() != tip.root:
                    raise ValueError("a frontier of another tree")
                head.tree.put(tip.ordinal, tenant_leaf(tip.tenant_id, tip.size, tip.root))
                head.tips[tip.tenant_id] = tip
        except ValueError:
            raise TrailChanged("the seals in the database do not add up") from None
        root = head.tree.root() if head.tips else EMPTY_ROOT
        if root != stored.body.tenants_root or len(head.tree) != stored.body.tenants:
            raise TrailChanged(f"the seals in the database are not those of checkpoint {stored.body.number}")
        head.rows = sum(tip.size for tip in head.tips.values())
        head.last_xid = max((tip.last_xid for tip in head.tips.values()), default=0)
        return head


def _new(seals: Sequence[Seal], head: _Head) -> int:
    return sum(1 for seal in seals if seal.tenant_id not in head.tips)
