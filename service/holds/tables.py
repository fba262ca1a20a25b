"""Tables of legal holds and of retention rules. The application role may add rows to them and change or remove none."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, ForeignKeyConstraint, Index, Integer, LargeBinary, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as SqlUuid
from sqlmodel import Field, SQLModel

from service.storage.erasers import keep
from service.storage.tables import moment


class HoldRow(SQLModel, table=True):
    """A hold. It covers subjects, or what a filter matches, or, with neither, the memories that were named."""

    __tablename__ = "holds"
    __table_args__ = (UniqueConstraint("tenant_id", "name", name="holds_name"),)

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    name: str
    subject_ids: list[UUID] | None = Field(default=None, sa_column=Column(ARRAY(SqlUuid(as_uuid=True)), nullable=True))
    filter: bytes | None = Field(default=None, sa_type=LargeBinary)
    reason: bytes
    placed_by: UUID
    placed_kind: str
    placed_person: UUID
    placed_at: datetime = Field(sa_column=moment())


class HoldMemberRow(SQLModel, table=True):
    """A memory that a hold covers, from when it was placed or the memory was written."""

    __tablename__ = "hold_members"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "hold_id"], ["holds.tenant_id", "holds.id"]),
        Index("hold_members_by_memory", "tenant_id", "memory_id"),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    hold_id: UUID = Field(primary_key=True)
    memory_id: UUID = Field(primary_key=True)
    joined_at: datetime = Field(sa_column=moment())


class HoldReleaseRow(SQLModel, table=True):
    """The end of a hold. A hold without one is live."""

    __tablename__ = "hold_releases"
    __table_args__ = (ForeignKeyConstraint(["tenant_id", "hold_id"], ["holds.tenant_id", "holds.id"]),)

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    hold_id: UUID = Field(primary_key=True)
    reason: bytes
    released_by: UUID
    released_kind: str
    released_person: UUID
    released_at: datetime = Field(sa_column=moment())


class RetentionRuleRow(SQLModel, table=True):
    """One version of a retention rule; the newest of an id counts. `match` is sealed under the tenant's key."""

    __tablename__ = "retention_rules"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    version: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    name: str
    match: bytes
    action: str
    counted_from: str
    age: str | None = None
    grace: str | None = None
    minimum: str | None = None
    priority: int
    removed: bool
    changed_by: UUID | None = None
    changed_kind: str
    changed_at: datetime = Field(sa_column=moment())


# Whom a live hold covers cannot be erased; of a released one nothing tells of a person.
keep(HoldRow, "subjects by surrogate, in filters too; what is sealed is the tenant's and not a person's")
keep(HoldMemberRow, "ids of memories, which stay told in the audit trail as well")
keep(HoldReleaseRow, "who released a hold, by surrogate; the sealed reason is the tenant's")
keep(RetentionRuleRow, "rules of the tenant, with people by surrogate in their sealed filters")
