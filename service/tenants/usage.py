"""Tables of what tenants have used, and the questions to them. Every function works in the caller's transaction."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Identity,
    delete,
    exists,
    func,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Field, SQLModel

from service.scope import Scope
from service.storage.erasers import Eraser, declare
from service.storage.tables import moment

#: Days that the LLM's use is kept for.
_KEPT_DAYS: Final = 40
#: Rows of differences that are not worth adding up.
_FEW_ROWS: Final = 50


class UsageRow(SQLModel, table=True):
    """By how much one statement changed the number and the bytes of a tenant's memories. A trigger writes it."""

    __tablename__ = "usage"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    memories: int = Field(sa_type=BigInteger)
    bytes: int = Field(sa_type=BigInteger)


class QuarantineUsageRow(SQLModel, table=True):
    """The same of those that wait for a reviewer."""

    __tablename__ = "quarantine_usage"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    memories: int = Field(sa_type=BigInteger)
    bytes: int = Field(sa_type=BigInteger)


class LlmUsageRow(SQLModel, table=True):
    """What a tenant has asked of the LLM on one day, in UTC."""

    __tablename__ = "llm_usage"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    day: date = Field(primary_key=True)
    calls: int = Field(sa_type=BigInteger)
    tokens: int = Field(sa_type=BigInteger)


class RateBucketRow(SQLModel, table=True):
    """How many requests of a tenant may come now. Unlogged: a crash of the database fills it up again."""

    __tablename__ = "rate_buckets"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    tokens: float
    taken: int
    at: datetime = Field(sa_column=moment())


declare(Eraser(UsageRow))
declare(Eraser(QuarantineUsageRow))
declare(Eraser(LlmUsageRow))
declare(Eraser(RateBucketRow))

_usage: Final[Any] = UsageRow.__table__  # type: ignore[attr-defined]
_waiting: Final[Any] = QuarantineUsageRow.__table__  # type: ignore[attr-defined]
_llm: Final[Any] = LlmUsageRow.__table__  # type: ignore[attr-defined]

_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
#: Fills the bucket up to now, takes what is asked for or what there is, and says how much that was and what is left.
_TAKE: Final = text(
    "INSERT INTO rate_buckets AS b (tenant_id, tokens, taken, at)"
    " VALUES (:tenant, :burst - least(:wanted, :burst), least(:wanted, :burst), statement_timestamp())"
    " ON CONFLICT (tenant_id) DO UPDATE SET"
    "  taken = least(:wanted, floor({now})), tokens = {now} - least(:wanted, floor({now})),"
    "  at = greatest(b.at, statement_timestamp())"
    " RETURNING taken, tokens".format(
        now="least(:burst, b.tokens"
        " + :rate * greatest(0, extract(epoch FROM statement_timestamp() - b.at)::double precision))"
    )
)
#: One statement and so one snapshot: what others add meanwhile stays beside the sum.
_ADD_UP: Final = {
    table: text(
        f"WITH gone AS (DELETE FROM {table.name} RETURNING tenant_id, memories, bytes)"
        f" INSERT INTO {table.name} (tenant_id, memories, bytes)"
        " SELECT tenant_id, sum(memories), sum(bytes) FROM gone GROUP BY tenant_id"
    )
    for table in (_usage, _waiting)
}


def one_by_one(connection: Connection, scope: Scope, what: str) -> None:
    """Let the tenant's transactions that ask for this pass one at a time, until each ends."""
    connection.execute(_LOCK, {"name": f"{what} {scope.tenant_id}"})


def stored(connection: Connection) -> tuple[int, int]:
    """Return the number of the tenant's memories in the record and the bytes of their sealed content."""
    sums = (func.coalesce(func.sum(column), 0) for column in (_usage.c.memories, _usage.c.bytes))
    row = connection.execute(select(*sums)).one()
    return int(row[0]), int(row[1])


def kept(connection: Connection) -> tuple[int, int]:
    """Return the same of all that the tenant keeps: its memories and what waits for a reviewer, by one snapshot."""
    both = union_all(*(select(table.c.memories, table.c.bytes) for table in (_usage, _waiting))).subquery()
    sums = (func.coalesce(func.sum(column), 0) for column in (both.c.memories, both.c.bytes))
    row = connection.execute(select(*sums)).one()
    return int(row[0]), int(row[1])


def add_up(connection: Connection) -> None:
    """Make one row of the tenant's many differences, when they have become many."""
    for table, add_up_all in _ADD_UP.items():
        if connection.execute(select(_are_many(table))).scalar_one():
            connection.execute(add_up_all)


def llm_used(connection: Connection, day: date) -> tuple[int, int]:
    """Return the calls and tokens of the tenant on a day."""
    row = connection.execute(select(_llm.c.calls, _llm.c.tokens).where(_llm.c.day == day)).first()
    return (0, 0) if row is None else (row.calls, row.tokens)


def use_llm(connection: Connection, scope: Scope, day: date, *, calls: int = 0, tokens: int = 0) -> None:
    """Note calls and tokens of the tenant on a day."""
    statement = insert(_llm).values(tenant_id=scope.tenant_id, day=day, calls=calls, tokens=tokens)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "day"],
            set_={"calls": _llm.c.calls + calls, "tokens": _llm.c.tokens + tokens},
        )
    )


def forget_llm_use(connection: Connection, today: date) -> None:
    """Remove the days that are long past."""
    connection.execute(delete(_llm).where(_long_past(today)))


def any_to_tidy(today: date) -> ColumnElement[bool]:
    """Return the condition that `add_up` or `forget_llm_use` has anything to do for the tenant."""
    return or_(*(_are_many(table) for table in _ADD_UP), exists().where(_long_past(today)))


def _are_many(table: Any) -> ColumnElement[bool]:
    """Return the condition that a table has more rows of the tenant than are worth keeping apart."""
    return select(table.c.id).offset(_FEW_ROWS).limit(1).exists()


def _long_past(today: date) -> ColumnElement[bool]:
    past: ColumnElement[bool] = _llm.c.day < today - timedelta(days=_KEPT_DAYS)
    return past


def take_requests(connection: Connection, scope: Scope, *, rate: int, wanted: int) -> tuple[int, float]:
    """Take requests out of the tenant's bucket, which fills by `rate` a second up to `rate`; return how many, and what
    is left in it.
    """
    values = {"tenant": scope.tenant_id, "rate": float(rate), "burst": float(rate), "wanted": wanted}
    row = connection.execute(_TAKE, values).one()
    return int(row.taken), float(row.tokens)
