"""Tables of events and idempotency keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ForeignKeyConstraint, Index, Integer, LargeBinary, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import UUID as SqlUuid
from sqlmodel import Field, SQLModel

from service.storage.erasers import Eraser, declare
from service.storage.tables import moment


class EventRow(SQLModel, table=True):
    """An add and how it went. `payload` is the sealed request, kept until the event is final; results hold ids only."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_by_time", "tenant_id", "created_at", "id"),
        Index("events_by_owner", "tenant_id", "owner_id"),
        Index(
            "events_unfinished",
            "tenant_id",
            "updated_at",
            postgresql_where=text("status IN ('PENDING', 'RUNNING')"),
        ),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    kind: str
    status: str
    owner_id: UUID
    subject_ids: list[UUID] = Field(sa_column=Column(ARRAY(SqlUuid(as_uuid=True)), nullable=False))
    principal_id: UUID
    principal_kind: str
    acting_id: UUID | None = None
    payload: bytes | None = Field(default=None, sa_type=LargeBinary)
    results: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    notes: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    code: str | None = None
    reason: str | None = None
    attempts: int = Field(default=0, sa_type=Integer)
    request_id: str
    client: str
    face: str
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())
    started_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    completed_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class IdempotencyRow(SQLModel, table=True):
    """A request that was made with an idempotency key. It points at the event, so that no answer is stored twice."""

    __tablename__ = "idempotency"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "event_id"],
            ["events.tenant_id", "events.id"],
            ondelete="CASCADE",
            deferrable=True,
            initially="DEFERRED",
        ),
        Index("idempotency_by_time", "tenant_id", "created_at"),
        Index("idempotency_by_event", "tenant_id", "event_id"),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    principal_id: UUID = Field(primary_key=True)
    key_mac: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    request_mac: bytes
    event_id: UUID
    created_at: datetime = Field(sa_column=moment())


class FeedbackRow(SQLModel, table=True):
    """What a key says of a memory; it leaves with the memory. `reason` is sealed under the key of `owner_id`."""

    __tablename__ = "feedback"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "memory_id"],
            ["memories.tenant_id", "memories.id"],
            ondelete="CASCADE",
            name="feedback_memory",
        ),
        UniqueConstraint("tenant_id", "memory_id", "principal_id", name="feedback_of_key"),
        Index("feedback_by_owner", "tenant_id", "owner_id"),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    memory_id: UUID
    owner_id: UUID
    principal_id: UUID
    verdict: str | None = None
    reason: bytes | None = Field(default=None, sa_type=LargeBinary)
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())


declare(Eraser(FeedbackRow, subjects=("owner_id",), parents={"memory_id": "memories"}, other=("principal_id",)))
declare(Eraser(EventRow, subjects=("owner_id", "subject_ids", "acting_id"), other=("principal_id",)))
declare(Eraser(IdempotencyRow, parents={"event_id": "events"}, other=("principal_id",)))
