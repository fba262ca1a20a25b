"""Tables of the audit trail, its seals and checkpoints. The application role adds to them and reads them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity, Index, LargeBinary
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.dialects.postgresql import UUID as SqlUuid
from sqlmodel import Field, SQLModel

from service.storage.erasers import keep
from service.storage.tables import moment


class AuditRow(SQLModel, table=True):
    """One action, read, write or refusal. The database sets `xid`; (xid, seq) is the order in which rows are sealed."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("audit_by_time", "tenant_id", "at", "id"),
        Index("audit_in_order", "tenant_id", "xid", "seq"),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    at: datetime = Field(sa_column=moment())
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
    acting_subject_id: UUID | None = None
    permissions: list[str] = Field(sa_column=Column(ARRAY(TEXT), nullable=False))
    purpose: str | None = None
    value_mac: bytes | None = None
    xid: int = Field(sa_column=Column(BigInteger, nullable=False))


class AuditDueRow(SQLModel, table=True):
    """A tenant that has a row to seal, written by a trigger in the transaction of the row."""

    __tablename__ = "audit_due"

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True, nullable=False)
    )
    tenant_id: UUID
    xid: int = Field(sa_column=Column(BigInteger, nullable=False))


class AuditCheckpointRow(SQLModel, table=True):
    """A signed checkpoint over the trees of all tenants: its body as it was signed, signatures by key id."""

    __tablename__ = "audit_checkpoints"

    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    at: datetime = Field(sa_column=moment())
    body: str
    signatures: dict[str, str] = Field(sa_column=Column(JSONB, nullable=False))


class AuditSealRow(SQLModel, table=True):
    """What one checkpoint sealed of one tenant: rows `first` to `size` - 1 of its tree, whose root is `root`.

    `frontier` is what the tree is continued from, `rows` the id and the head of the leaf hash of each row sealed.
    """

    __tablename__ = "audit_seals"
    __table_args__ = (Index("audit_seals_by_number", "number", "ordinal"),)

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    ordinal: int = Field(sa_column=Column(BigInteger, nullable=False))
    first: int = Field(sa_column=Column(BigInteger, nullable=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    root: bytes
    frontier: bytes
    last_xid: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    rows: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class AuditDeliveryRow(SQLModel, table=True):
    """How far a sink has the checkpoints."""

    __tablename__ = "audit_deliveries"

    sink: str = Field(primary_key=True)
    number: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: datetime = Field(sa_column=moment())


class AuditDropRow(SQLModel, table=True):
    """A part of a tenant's trail that retention dropped: its first `size` rows, of which `frontier` remains."""

    __tablename__ = "audit_drops"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    size: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    last_xid: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    frontier: bytes
    at: datetime = Field(sa_column=moment())


keep(AuditRow, "people are named by surrogates only, and what a person asked or said by HMACs under the key that dies")
for _row in (AuditDueRow, AuditSealRow, AuditDropRow):
    keep(_row, "counts and hashes that the trail is verified by")
