"""Tables of retention runs: what each run looked at, what it did or would do, and how far it is."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, text
from sqlmodel import Field, SQLModel

from service.storage.erasers import keep
from service.storage.tables import moment


class RetentionRunRow(SQLModel, table=True):
    """A run. `place` is the last memory that was looked at; a run that a crash cut short goes on behind it."""

    __tablename__ = "retention_runs"
    __table_args__ = (
        Index(
            "retention_runs_open",
            "tenant_id",
            unique=True,
            postgresql_where=text("status = 'running' AND NOT dry"),
        ),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    dry: bool
    status: str
    now: datetime = Field(sa_column=moment())
    place: UUID | None = None
    seen: int = Field(sa_column=Column(BigInteger, nullable=False))
    deleted: int = Field(sa_column=Column(BigInteger, nullable=False))
    hidden: int = Field(sa_column=Column(BigInteger, nullable=False))
    asked_by: UUID | None = None
    started_at: datetime = Field(sa_column=moment())
    ended_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class RetentionItemRow(SQLModel, table=True):
    """What a run did with a memory or, a dry one, would do."""

    __tablename__ = "retention_items"
    __table_args__ = (ForeignKeyConstraint(["tenant_id", "run_id"], ["retention_runs.tenant_id", "retention_runs.id"]),)

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    run_id: UUID = Field(primary_key=True)
    memory_id: UUID = Field(primary_key=True)
    step: str
    rule_id: UUID | None = None
    rule_version: int | None = None
    due_at: datetime = Field(sa_column=moment())


keep(RetentionRunRow, "counts and times of runs, and who asked for them")
keep(RetentionItemRow, "ids of memories with what became of them, which the audit trail tells as well")
