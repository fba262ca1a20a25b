"""The ledger of retention runs: begins, moves, ends and reads them, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from service import clock
from service.retention.plan import Planned, Step
from service.retention.run_tables import RetentionItemRow, RetentionRunRow
from service.scope import Scope

_runs: Final[Any] = RetentionRunRow.__table__  # type: ignore[attr-defined]
_items: Final[Any] = RetentionItemRow.__table__  # type: ignore[attr-defined]
RUNNING: Final = "running"
DONE: Final = "done"
_DRY_AT_MOST: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Run:
    """A run and how far it is. `now` is the moment by which ages are judged, for all of it."""

    id: UUID
    dry: bool
    status: str
    now: datetime
    place: UUID | None
    seen: int
    deleted: int
    hidden: int
    asked_by: UUID | None
    started_at: datetime
    ended_at: datetime | None

    @property
    def is_done(self) -> bool:
        """Whether the run has looked at every memory."""
        return self.status == DONE


@dataclass(frozen=True, slots=True)
class ByRule:
    """How many memories a run deleted or hid (or would) by one rule; none: by their own expiration dates."""

    rule_id: UUID | None
    step: Step
    count: int


def begin(connection: Connection, scope: Scope, *, dry: bool, asked_by: UUID | None) -> tuple[Run, bool]:
    """Return a new run, or the tenant's real one that is under way, and whether it is new."""
    moment = clock.now()
    row = {
        "tenant_id": scope.tenant_id,
        "id": clock.new_id(),
        "dry": dry,
        "status": RUNNING,
        "now": moment,
        "seen": 0,
        "deleted": 0,
        "hidden": 0,
        "asked_by": asked_by,
        "started_at": moment,
    }
    made = connection.execute(upsert(_runs).values(**row).on_conflict_do_nothing().returning(*_runs.columns)).first()
    if made is not None:
        return _run(made), True
    open_one = (_runs.c.tenant_id == scope.tenant_id) & (_runs.c.status == RUNNING) & ~_runs.c.dry
    return _run(connection.execute(select(_runs).where(open_one)).one()), False


def find(connection: Connection, scope: Scope, run_id: UUID, *, lock: bool = False) -> Run | None:
    """Return a run, or None; locked, so that one process takes a step of it at a time."""
    query = select(_runs).where(_runs.c.tenant_id == scope.tenant_id, _runs.c.id == run_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _run(row)


def unfinished(connection: Connection, scope: Scope) -> list[UUID]:
    """Return the real runs of the tenant that have not ended."""
    query = select(_runs.c.id).where(_runs.c.tenant_id == scope.tenant_id, _runs.c.status == RUNNING, ~_runs.c.dry)
    return list(connection.execute(query).scalars())


def last_ended(connection: Connection) -> datetime | None:
    """Return when the tenant's last real run ended, or None before the first."""
    query = select(func.max(_runs.c.ended_at)).where(~_runs.c.dry, _runs.c.status == DONE)
    ended: datetime | None = connection.execute(query).scalar_one()
    return ended


def advance(
    connection: Connection, scope: Scope, run: Run, planned: Sequence[Planned], *, place: UUID | None, seen: int
) -> None:
    """Write down what a step did (or would do), in its transaction; without a place the run has ended."""
    if planned:
        rows = [
            {
                "tenant_id": scope.tenant_id,
                "run_id": run.id,
                "memory_id": one.memory_id,
                "step": one.step.value,
                "rule_id": one.rule_id,
                "rule_version": one.rule_version,
                "due_at": one.due_at,
            }
            for one in planned
        ]
        connection.execute(insert(_items), rows)
    deleted = sum(one.step is Step.DELETE for one in planned)
    values: dict[str, Any] = {
        "place": place or run.place,
        "seen": _runs.c.seen + seen,
        "deleted": _runs.c.deleted + deleted,
        "hidden": _runs.c.hidden + len(planned) - deleted,
    }
    if place is None:
        values |= {"status": DONE, "ended_at": clock.now()}
    connection.execute(update(_runs).where(_runs.c.tenant_id == scope.tenant_id, _runs.c.id == run.id).values(**values))


def page(connection: Connection, scope: Scope, *, skip: int, size: int) -> tuple[list[Run], int]:
    """Return one slice of the runs, the newest first, and how many there are in all."""
    mine = _runs.c.tenant_id == scope.tenant_id
    total = connection.execute(select(func.count()).select_from(_runs).where(mine)).scalar_one()
    query = select(_runs).where(mine).order_by(_runs.c.started_at.desc(), _runs.c.id.desc())
    return [_run(row) for row in connection.execute(query.offset(skip).limit(size))], int(total)


def items(connection: Connection, scope: Scope, run_id: UUID, *, skip: int, size: int) -> tuple[list[Planned], int]:
    """Return one slice of what a run did, by memory, and how much that is in all."""
    mine = (_items.c.tenant_id == scope.tenant_id) & (_items.c.run_id == run_id)
    total = connection.execute(select(func.count()).select_from(_items).where(mine)).scalar_one()
    rows = connection.execute(select(_items).where(mine).order_by(_items.c.memory_id).offset(skip).limit(size))
    found = [Planned(row.memory_id, Step(row.step), row.due_at, row.rule_id, row.rule_version) for row in rows]
    return found, int(total)


def by_rule(connection: Connection, scope: Scope, run_id: UUID) -> list[ByRule]:
    """Return the counts of a run by rule and step."""
    query = (
        select(_items.c.rule_id, _items.c.step, func.count())
        .where(_items.c.tenant_id == scope.tenant_id, _items.c.run_id == run_id)
        .group_by(_items.c.rule_id, _items.c.step)
        .order_by(_items.c.rule_id, _items.c.step)
    )
    return [ByRule(row[0], Step(row[1]), int(row[2])) for row in connection.execute(query)]


def forget_old(connection: Connection, scope: Scope, *, before: datetime) -> int:
    """Remove the runs that ended before a moment, with their items; return how many runs.

    So are dry ones that began a day ago and have not ended: nothing goes on with what a stop cut short.
    """
    cut_short = _runs.c.dry & (_runs.c.status == RUNNING) & (_runs.c.started_at < clock.now() - _DRY_AT_MOST)
    old = (_runs.c.tenant_id == scope.tenant_id) & ((_runs.c.ended_at < before) | cut_short)
    ids = select(_runs.c.id).where(old)
    connection.execute(delete(_items).where(_items.c.tenant_id == scope.tenant_id, _items.c.run_id.in_(ids)))
    return int(connection.execute(delete(_runs).where(old)).rowcount)


def _run(row: Any) -> Run:
    return Run(
        id=row.id,
        dry=row.dry,
        status=row.status,
        now=row.now,
        place=row.place,
        seen=row.seen,
        deleted=row.deleted,
        hidden=row.hidden,
        asked_by=row.asked_by,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
