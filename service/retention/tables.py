"""Tables of erasures. The requests and receipts outlive what they are about, and name surrogates only."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, LargeBinary, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from service.storage.erasers import keep
from service.storage.tables import moment


class ErasureRow(SQLModel, table=True):
    """An erasure: of what (a subject by its surrogate, a connector by its sealed name), how far it is, its receipt."""

    __tablename__ = "erasures"
    __table_args__ = (
        Index("erasures_by_time", "tenant_id", "requested_at", "id"),
        Index(
            "erasures_open",
            "tenant_id",
            "kind",
            "subject_id",
            unique=True,
            postgresql_where=text("status IN ('scheduled', 'running') AND subject_id IS NOT NULL"),
        ),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    kind: str
    subject_id: UUID | None = None
    target: bytes | None = Field(default=None, sa_type=LargeBinary)
    target_mac: bytes | None = Field(default=None, sa_type=LargeBinary)
    status: str
    due_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    blocked_by: str | None = None
    principal_id: UUID | None = None
    requested_at: datetime = Field(sa_column=moment())
    begun_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    removed_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    completed_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    removed: dict[str, int] = Field(sa_column=Column(JSONB, nullable=False))
    sealed_elsewhere: int = Field(sa_type=BigInteger)
    physical: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB, nullable=True))
    receipt: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB, nullable=True))


class ErasureWorkRow(SQLModel, table=True):
    """An erasure that has something to be done, and when. Tenant-blind: ids and times only."""

    __tablename__ = "erasure_work"
    __table_args__ = (Index("erasure_work_by_due", "due_at"),)

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    erasure_id: UUID = Field(primary_key=True)
    due_at: datetime = Field(sa_column=moment())


keep(ErasureRow, "the request and its receipt, by the surrogate of who is gone; the sealed name of a connector")
keep(ErasureWorkRow, "ids and times of what is to be done; it empties itself")
