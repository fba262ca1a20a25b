"""Tables of webhooks and of what is to be delivered to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    delete,
    func,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as SqlUuid
from sqlmodel import Field, SQLModel

from service.scope import Scope
from service.storage.erasers import Eraser, declare
from service.storage.tables import moment

#: The type of what tells that memories are gone.
DELETED: Final = "memory_delete"


class WebhookRow(SQLModel, table=True):
    """An address that is told of changes. Name, URL and secret are sealed under the tenant's key."""

    __tablename__ = "webhooks"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    name: bytes
    url: bytes
    secret: bytes
    event_types: list[str] = Field(sa_column=Column(ARRAY(String), nullable=False))
    principal_id: UUID
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())


class DeliveryRow(SQLModel, table=True):
    """One notification and how it went: ids and codes, no content."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "webhook_id"], ["webhooks.tenant_id", "webhooks.id"], ondelete="CASCADE"),
        Index("webhook_deliveries_by_webhook", "tenant_id", "webhook_id", "created_at", "id"),
        Index("webhook_deliveries_by_subject", "subject_ids", postgresql_using="gin"),
        Index("webhook_deliveries_pending", "tenant_id", "due_at", postgresql_where=text("status = 'pending'")),
        Index("webhook_deliveries_ended", "tenant_id", "updated_at", postgresql_where=text("status <> 'pending'")),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    webhook_id: UUID
    event_type: str
    memory_ids: list[UUID] = Field(sa_column=Column(ARRAY(SqlUuid(as_uuid=True)), nullable=False))
    subject_ids: list[UUID] = Field(sa_column=Column(ARRAY(SqlUuid(as_uuid=True)), nullable=False))
    status: str
    attempts: int = Field(default=0, sa_type=Integer)
    http_status: int | None = Field(default=None, sa_type=Integer)
    code: str | None = None
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())
    due_at: datetime = Field(sa_column=moment())


declare(Eraser(WebhookRow, other=("principal_id",)))
_deliveries: Final[Any] = DeliveryRow.__table__  # type: ignore[attr-defined]


def _forget(connection: Connection, scope: Scope, subject_id: UUID) -> int:
    """Remove what tells of an erased subject; what is yet to tell of others, or that it is gone, loses the id only.

    Whoever was told of a memory must hear that it is gone. The ids of memories say nothing of anybody by themselves.
    """
    columns = _deliveries.c
    theirs = columns.subject_ids.contains([subject_id])
    of_more = (func.cardinality(columns.subject_ids) > 1) | (columns.event_type == DELETED)
    kept = update(_deliveries).where(theirs, columns.status == "pending", of_more)
    changed = connection.execute(kept.values(subject_ids=func.array_remove(columns.subject_ids, subject_id)))
    return int(changed.rowcount + connection.execute(delete(_deliveries).where(theirs)).rowcount)


declare(
    Eraser(
        DeliveryRow,
        subjects=("subject_ids",),
        parents={"webhook_id": "webhooks"},
        other=("memory_ids",),
        of_subject=_forget,
    )
)
