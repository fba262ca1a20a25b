"""Tables of API keys."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, DateTime, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as SqlUuid
from sqlmodel import Field, SQLModel


def _moment(*, nullable: bool = False) -> Column[datetime]:
    return Column(DateTime(timezone=True), nullable=nullable)


class KeyIndexRow(SQLModel, table=True):
    """From the hash of a key to its tenant. Tenant-blind: it is read before the tenant is known."""

    __tablename__ = "key_index"

    key_hash: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    tenant_id: UUID = Field(foreign_key="tenants.id")
    key_id: UUID


class ApiKeyRow(SQLModel, table=True):
    """An API key: what it may do and until when. The secret itself is never stored."""

    __tablename__ = "api_keys"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    prefix: str
    label: bytes | None = None
    permissions: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    user_ids: list[UUID] | None = Field(default=None, sa_column=Column(ARRAY(SqlUuid(as_uuid=True)), nullable=True))
    connector: str | None = None
    created_by: UUID | None = None
    created_at: datetime = Field(sa_column=_moment())
    expires_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    last_used_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    revoked_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
