"""The table of exports: what was asked for. No export is kept: it is made from the record while it is read."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, Index, LargeBinary
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as SqlUuid
from sqlmodel import Field, SQLModel

from service.storage.erasers import Eraser, declare
from service.storage.tables import moment


class ExportRow(SQLModel, table=True):
    """An export that was asked for. `request` (filters and schema) is sealed; `request_mac` finds it by the filters."""

    __tablename__ = "exports"
    __table_args__ = (Index("exports_by_request", "tenant_id", "request_mac", "created_at"),)

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    principal_id: UUID
    subject_ids: list[UUID] = Field(sa_column=Column(ARRAY(SqlUuid(as_uuid=True)), nullable=False))
    request: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    request_mac: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = Field(sa_column=moment())


declare(Eraser(ExportRow, subjects=("subject_ids",), other=("principal_id",)))
