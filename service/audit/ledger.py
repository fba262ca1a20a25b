"""Checkpoints, seals, deliveries and drops in Postgres: tenant-blind tables of counts, hashes and signatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from service import clock
from service.audit.checkpoints import BadDocument, Checkpoint, Cluster, Seal, parse_body
from service.audit.merkle import Frontier
from service.audit.tables import (
    AuditCheckpointRow,
    AuditDeliveryRow,
    AuditDropRow,
    AuditDueRow,
    AuditRow,
    AuditSealRow,
)
from service.errors import MemvaultError, Unavailable
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database

_audit: Final[Any] = AuditRow.__table__  # type: ignore[attr-defined]
_due: Final[Any] = AuditDueRow.__table__  # type: ignore[attr-defined]
_checkpoints: Final[Any] = AuditCheckpointRow.__table__  # type: ignore[attr-defined]
_seals: Final[Any] = AuditSealRow.__table__  # type: ignore[attr-defined]
_deliveries: Final[Any] = AuditDeliveryRow.__table__  # type: ignore[attr-defined]
_drops: Final[Any] = AuditDropRow.__table__  # type: ignore[attr-defined]

#: Checkpoints read along with one that is read again, before it and behind it.
_NEAR: Final = 50
_BATCH: Final = 500
#: The newest seal of each tenant, one index descent a tenant however many seals there are.
_NEWEST_SEALS: Final = text(
    "SELECT s.* FROM tenants t CROSS JOIN LATERAL ("
    "  SELECT tenant_id, number, ordinal, size, root, frontier, last_xid, last_seq FROM audit_seals"
    "   WHERE tenant_id = t.id AND number <= :number ORDER BY number DESC LIMIT 1) s ORDER BY s.ordinal"
)
_HORIZON: Final = text("SELECT audit_order(pg_snapshot_xmin(pg_current_snapshot()))")
_WRITTEN_AT: Final = text("SELECT min(at) FROM audit WHERE xid = :xid")
_MAY_ASK: Final = text("SELECT has_function_privilege('pg_control_system()', 'execute')")
_SYSTEM: Final = text("SELECT system_identifier FROM pg_control_system()")
#: The first eight digits of the name of a file of the WAL.
_TIMELINE: Final = text("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")


@dataclass(frozen=True, slots=True)
class Tip:
    """How far a tenant's tree goes, and what it is continued from."""

    tenant_id: UUID
    ordinal: int
    size: int
    root: bytes
    peaks: bytes
    last_xid: int
    last_seq: int

    def frontier(self) -> Frontier:
        """Return the tree, to be continued."""
        return Frontier(self.size, self.peaks)


@dataclass(frozen=True, slots=True)
class Drop:
    """A dropped part: the first `size` rows, of which `peaks` remains."""

    tenant_id: UUID
    size: int
    peaks: bytes
    at: datetime


class TrailChanged(MemvaultError):
    """The database does not hold what was signed; nothing more is signed over it."""

    code = "audit_trail_changed"


@dataclass(frozen=True, slots=True)
class Due:
    """A tenant with rows to seal, and the note that says so."""

    note: int
    tenant_id: UUID


class Ledger:
    """Reads and adds. Nothing here is ever changed but how far a sink is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._system: int | None = None

    def horizon(self, connection: Connection) -> int:
        """Return the place in the trail's order below which every row is final: committed or never to be."""
        return int(connection.execute(_HORIZON).scalar_one())

    def cluster(self, connection: Connection, horizon: int) -> Cluster:
        """Return where the database stands."""
        if self._system is None:
            told = connection.execute(_MAY_ASK).scalar_one()
            self._system = int(connection.execute(_SYSTEM).scalar_one()) if told else 0
        timeline = int(connection.execute(_TIMELINE).scalar_one(), 16)
        return Cluster(self._system, timeline, horizon)

    def due(self, connection: Connection, horizon: int, limit: int) -> list[Due]:
        """Return the oldest notes of tenants with rows below the horizon."""
        query = select(_due.c.id, _due.c.tenant_id).where(_due.c.xid < horizon).order_by(_due.c.id).limit(limit)
        return [Due(row.id, row.tenant_id) for row in connection.execute(query)]

    def forget_due(self, connection: Connection, notes: Sequence[int]) -> None:
        """Forget notes whose rows are sealed."""
        if notes:
            connection.execute(delete(_due).where(_due.c.id == func.any(list(notes))))

    def count_due(self, most: int = 100_000) -> int:
        """Return how many rows wait to be sealed, counted up to `most`."""
        with self._database.tenant_blind() as connection:
            counted = select(_due.c.id).limit(most).subquery()
            return int(connection.execute(select(func.count()).select_from(counted)).scalar_one())

    @staticmethod
    def last_at(connection: Connection) -> datetime | None:
        """Return when the newest checkpoint was signed, or None before the first."""
        query = select(_checkpoints.c.at).order_by(_checkpoints.c.number.desc()).limit(1)
        at: datetime | None = connection.execute(query).scalar()
        return at

    def unsealed(self, connection: Connection) -> tuple[UUID, int] | None:
        """Return the tenant and the place in the order of the oldest row that waits to be sealed, or None."""
        row = connection.execute(select(_due.c.tenant_id, _due.c.xid).order_by(_due.c.id).limit(1)).first()
        return None if row is None else (row.tenant_id, row.xid)

    @staticmethod
    def written_at(connection: Connection, place: int) -> datetime | None:
        """Return when the first row at a place of the order was written, of the tenant of the transaction."""
        at: datetime | None = connection.execute(_WRITTEN_AT, {"xid": place}).scalar_one()
        return at

    def undelivered(self, connection: Connection) -> dict[str, datetime | None]:
        """Return, by place, since when the oldest checkpoint that it lacks is there; None when it has all."""
        oldest = select(func.min(_checkpoints.c.at)).where(_checkpoints.c.number > _deliveries.c.number)
        rows = connection.execute(select(_deliveries.c.sink, oldest.scalar_subquery()))
        return {row[0]: row[1] for row in rows}

    def head(self, connection: Connection) -> Checkpoint | None:
        """Return the newest checkpoint without its seals, or None before the first.

        Raises:
            TrailChanged: when it is none any more.
        """
        row = (
            connection.execute(select(_checkpoints).order_by(_checkpoints.c.number.desc()).limit(1)).mappings().first()
        )
        return None if row is None else _signed(row["number"], _checkpoint(row))

    def find(self, number: int) -> Checkpoint | None:
        """Return a checkpoint without its seals, or None.

        Raises:
            TrailChanged: when it is none any more.
        """
        with self._database.tenant_blind() as connection:
            row = connection.execute(select(_checkpoints).where(_checkpoints.c.number == number)).mappings().first()
        return None if row is None else _signed(row["number"], _checkpoint(row))

    def tips(self, connection: Connection, number: int) -> list[Tip]:
        """Return how far the tree of each tenant goes at a checkpoint, by ordinal."""
        return [
            Tip(row.tenant_id, row.ordinal, row.size, row.root, row.frontier, row.last_xid, row.last_seq)
            for row in connection.execute(_NEWEST_SEALS, {"number": number})
        ]

    def add(self, connection: Connection, checkpoint: Checkpoint, tips: Sequence[Tip]) -> None:
        """Add a checkpoint with its seals; `tips` are the trees after each seal, in the same order."""
        body = checkpoint.body
        connection.execute(
            insert(_checkpoints).values(
                number=body.number,
                at=body.at,
                body=checkpoint.encoded.decode(),
                signatures=dict(checkpoint.signatures),
            )
        )
        if checkpoint.seals:
            rows = [
                {
                    "tenant_id": seal.tenant_id,
                    "number": body.number,
                    "ordinal": seal.ordinal,
                    "first": seal.first,
                    "size": seal.size,
                    "root": seal.root,
                    "frontier": tip.peaks,
                    "last_xid": tip.last_xid,
                    "last_seq": tip.last_seq,
                    "rows": seal.rows,
                }
                for seal, tip in zip(checkpoint.seals, tips, strict=True)
            ]
            connection.execute(insert(_seals), rows)

    def after(self, number: int, limit: int) -> list[Checkpoint]:
        """Return the checkpoints beyond a number with their seals, the oldest first.

        Raises:
            TrailChanged: when one of them is none any more.
        """
        return [_signed(place, checkpoint) for place, checkpoint in self.rows_after(number, limit)]

    def rows_after(self, number: int, limit: int) -> list[tuple[int, Checkpoint | None]]:
        """Return the same by the numbers that their rows have; None for what is no checkpoint of that number."""
        with self._database.tenant_blind() as connection:
            query = select(_checkpoints).where(_checkpoints.c.number > number).order_by(_checkpoints.c.number)
            found = connection.execute(query.limit(limit)).mappings().all()
            if not found:
                return []
            numbers = found[0]["number"], found[-1]["number"]
            seals_query = select(_seals).where(_seals.c.number.between(*numbers))
            rows = connection.execute(seals_query.order_by(_seals.c.number, _seals.c.ordinal)).mappings().all()
        seals = {at: tuple(map(_seal, group)) for at, group in groupby(rows, key=lambda row: row["number"])}
        return [(row["number"], _checkpoint(row, seals.get(row["number"], ()))) for row in found]

    def all(self, *, batch: int = _BATCH) -> Iterator[Checkpoint]:
        """Return every checkpoint with its seals, the oldest first.

        Raises:
            TrailChanged: as `after`.
        """
        last = 0
        while found := self.after(last, batch):
            yield from found
            last = found[-1].body.number

    def delivered(self, sink: str) -> int:
        """Return the number of the last checkpoint that a sink has, 0 for none."""
        with self._database.tenant_blind() as connection:
            number = connection.execute(select(_deliveries.c.number).where(_deliveries.c.sink == sink)).scalar()
        return int(number or 0)

    def set_delivered(self, sink: str, number: int) -> None:
        """Note how far a sink has the checkpoints; it never goes back."""
        values = {"sink": sink, "number": number, "at": clock.now()}
        statement = upsert(_deliveries).values(**values)
        with self._database.tenant_blind() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["sink"], set_=values, where=_deliveries.c.number < number
                )
            )

    def drops(self) -> dict[UUID, Drop]:
        """Return the last dropped part of each tenant that has one."""
        with self._database.tenant_blind() as connection:
            rows = connection.execute(select(_drops).order_by(_drops.c.tenant_id, _drops.c.size)).all()
        return {row.tenant_id: Drop(row.tenant_id, row.size, row.frontier, row.at) for row in rows}

    def newest_seal_before(self, tenant_id: TenantId, moment: datetime) -> Tip | None:
        """Return the tree of a tenant at its newest seal of what is older than a moment, rows and checkpoint, or None.

        The rows are asked as well: a clock that was set back for a while signed checkpoints of its own time over them.
        """
        young = select(_audit.c.xid, _audit.c.seq).where(_audit.c.tenant_id == tenant_id, _audit.c.at >= moment)
        query = (
            select(_seals)
            .join(_checkpoints, _checkpoints.c.number == _seals.c.number)
            .where(_seals.c.tenant_id == tenant_id, _checkpoints.c.at < moment)
            .order_by(_seals.c.number.desc())
            .limit(1)
        )
        with self._database.transaction(Scope.of(service_principal(tenant_id))) as connection:
            first = connection.execute(young.order_by(_audit.c.xid, _audit.c.seq).limit(1)).first()
            if first is not None:
                query = query.where(tuple_(_seals.c.last_xid, _seals.c.last_seq) < (first.xid, first.seq))
            row = connection.execute(query).first()
        return None if row is None else _tip(row)

    def now(self) -> datetime:
        """Return what the clock of the database says."""
        with self._database.tenant_blind() as connection:
            moment: datetime = connection.execute(select(func.now())).scalar_one()
        return moment

    def seal_of(self, tenant_id: UUID, place: tuple[int, int]) -> tuple[Seal, int, Tip | None] | None:
        """Return the seal that holds the row at a place of the order, its number, and the tree before it."""
        with self._database.tenant_blind() as connection:
            rows = connection.execute(
                text(
                    "SELECT * FROM audit_seals WHERE tenant_id = :tenant AND (last_xid, last_seq) >= (:xid, :seq)"
                    " ORDER BY number LIMIT 1"
                ),
                {"tenant": tenant_id, "xid": place[0], "seq": place[1]},
            ).mappings()
            row = rows.first()
            if row is None:
                return None
            before = connection.execute(
                select(_seals)
                .where(_seals.c.tenant_id == tenant_id, _seals.c.number < row["number"])
                .order_by(_seals.c.number.desc())
                .limit(1)
            ).first()
        return _seal(row), row["number"], None if before is None else _tip(before)


class StoredCheckpoints:
    """The checkpoints of the database to verify, by their numbers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._near: dict[int, Checkpoint | None] = {}

    def places(self) -> Iterator[tuple[int, Checkpoint | None]]:
        """Yield each checkpoint with its number; None for what is none any more."""
        last = 0
        while found := self._ledger.rows_after(last, _BATCH):
            yield from found
            last = found[-1][0]

    def at(self, place: int) -> Checkpoint:
        """Read a checkpoint once more, and those about it, which are asked for next.

        Raises:
            Unavailable: when it is not there any more.
        """
        if place not in self._near:
            self._near = dict(self._ledger.rows_after(place - _NEAR, 2 * _NEAR))
        found = self._near.get(place)
        if found is None:
            raise Unavailable(f"checkpoint {place} left the database while it was read")
        return found


def _tip(row: Any) -> Tip:
    return Tip(row.tenant_id, row.ordinal, row.size, row.root, row.frontier, row.last_xid, row.last_seq)


def _checkpoint(row: RowMapping, seals: tuple[Seal, ...] = ()) -> Checkpoint | None:
    """Return the checkpoint of a row, or None where none of its number stands there."""
    signatures = row["signatures"]
    if not isinstance(signatures, dict):
        return None
    try:
        found = parse_body(row["body"].encode(), {name: str(value) for name, value in signatures.items()}, seals)
    except BadDocument:
        return None
    return found if found.body.number == row["number"] else None


def _signed(number: int, found: Checkpoint | None) -> Checkpoint:
    if found is None:
        raise TrailChanged(f"checkpoint {number} in the database is not what was signed")
    return found


def _seal(row: RowMapping) -> Seal:
    return Seal(row["tenant_id"], row["ordinal"], row["first"], row["size"], row["root"], row["rows"])
