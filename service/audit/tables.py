"""Table of the audit trail. The application role can insert and select, nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import UUID as SqlUuid
from sqlmodel import Field, SQLModel


class AuditRow(SQLModel, table=True):
    """One action, read, write or refusal."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_by_time", "tenant_id", "at", "id"),)

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    event: str
    outcome: str
    principal_id: UUID | None = None
    subject_ids: list[UUID] = Field(sa_column=Column(ARRAY(SqlUuid(as_uuid=True)), nullable=False))
    connector: str | None = None
    client: str
    face: str
    request_id: str
    target_ids: list[UUID] = Field(sa_column=Column(ARRAY(SqlUuid(as_uuid=True)), nullable=False))
    result_ids: list[UUID] = Field(sa_column=Column(ARRAY(SqlUuid(as_uuid=True)), nullable=False))
    query_mac: bytes | None = None
    detail: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
