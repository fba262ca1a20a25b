"""Tables of the record: memories, their history, the buffered messages, and the outbox that feeds the index."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from service.storage.erasers import Eraser, declare, keep

#: Tables that are read before a tenant is known. They hold ids and hashes, never user data, and have no row-level
#: security; the catalogue test fails for any other table without it.
TENANT_BLIND_TABLES = frozenset(
    {"tenants", "key_index", "outbox", "tasks", "erasure_work", "alembic_version"}
    # What stays done when the database goes back: ids, and ciphertext that only the tenant's key opens.
    | {"tombstones"}
    # Counts and hashes that the sealer reads across tenants.
    | {"audit_due", "audit_checkpoints", "audit_seals", "audit_deliveries", "audit_drops"}
    # How far each stream of the trail has got.
    | {"audit_streams", "audit_stream_places"}
    # Which embedding models there are; what opens them is sealed under the service's own key.
    | {"embedding_models"}
)


NOW: Final = func.statement_timestamp()
"""The moment of a statement by the database's clock: those of the processes that share it differ."""


def moment(*, nullable: bool = False) -> Column[datetime]:
    """A column for a moment in time, with its time zone."""
    return Column(DateTime(timezone=True), nullable=nullable)


class MemoryRow(SQLModel, table=True):
    """One memory. `content` and `vector` are sealed under the key of `owner_id`."""

    __tablename__ = "memories"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], ["subjects.tenant_id", "subjects.id"]),
        ForeignKeyConstraint(["tenant_id", "agent_id"], ["subjects.tenant_id", "subjects.id"]),
        ForeignKeyConstraint(["tenant_id", "app_id"], ["subjects.tenant_id", "subjects.id"]),
        ForeignKeyConstraint(["tenant_id", "run_id"], ["subjects.tenant_id", "subjects.id"]),
        UniqueConstraint("tenant_id", "identity_mac", name="memories_identity"),
        Index("memories_by_time", "tenant_id", "created_at", "id"),
        Index("memories_by_owner", "tenant_id", "owner_id"),
        Index("memories_by_user", "tenant_id", "user_id", "created_at", "id"),
        Index("memories_by_agent", "tenant_id", "agent_id"),
        Index("memories_by_app", "tenant_id", "app_id"),
        Index("memories_by_run", "tenant_id", "run_id"),
        Index("memories_by_place", "tenant_id", "place"),
        Index("memories_by_likeness", "tenant_id", "likeness"),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    owner_id: UUID
    user_id: UUID | None = None
    agent_id: UUID | None = None
    app_id: UUID | None = None
    run_id: UUID | None = None
    content: bytes
    vector: bytes
    embedder: str
    tokens: list[int] = Field(sa_column=Column(ARRAY(BigInteger), nullable=False))
    identity_mac: bytes | None = Field(default=None, sa_type=LargeBinary)
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())
    ingested_at: datetime = Field(sa_column=moment())
    expires_on: date | None = None
    event_id: UUID | None = None
    principal_id: UUID | None = None
    place: int | None = Field(default=None, sa_type=BigInteger)
    #: By which one that is worded alike is looked up; what was stored before has none.
    likeness: int | None = Field(default=None, sa_type=BigInteger)


class SupersessionRow(SQLModel, table=True):
    """One memory that says anew what an older one said, of a fact that changed (`changed`) or did not (`same`).

    What is only `proposed` to be `linked`, or `dismissed`, hides nothing.
    """

    __tablename__ = "supersessions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "older_id"],
            ["memories.tenant_id", "memories.id"],
            name="supersessions_older",
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["tenant_id", "newer_id"],
            ["memories.tenant_id", "memories.id"],
            name="supersessions_newer",
            ondelete="CASCADE",
        ),
        Index("supersessions_by_newer", "tenant_id", "newer_id"),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    older_id: UUID = Field(primary_key=True)
    newer_id: UUID = Field(primary_key=True)
    kind: str
    state: str
    created_at: datetime = Field(sa_column=moment())


class ComparisonRow(SQLModel, table=True):
    """A memory that the language model was asked about, whether a newer one makes others untrue.

    What is not `settled` is asked about again. It holds for the `version` that was asked about.
    """

    __tablename__ = "comparisons"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "memory_id"],
            ["memories.tenant_id", "memories.id"],
            name="comparisons_memory",
            ondelete="CASCADE",
        ),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    memory_id: UUID = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    tries: int = Field(sa_type=SmallInteger)
    settled: bool
    asked_at: datetime = Field(sa_column=moment())


class QuarantineRow(SQLModel, table=True):
    """A memory that waits for a reviewer. `content` and `vector` are sealed under the key of `owner_id`."""

    __tablename__ = "quarantine"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], ["subjects.tenant_id", "subjects.id"]),
        ForeignKeyConstraint(["tenant_id", "agent_id"], ["subjects.tenant_id", "subjects.id"]),
        ForeignKeyConstraint(["tenant_id", "app_id"], ["subjects.tenant_id", "subjects.id"]),
        ForeignKeyConstraint(["tenant_id", "run_id"], ["subjects.tenant_id", "subjects.id"]),
        UniqueConstraint("tenant_id", "identity_mac", name="quarantine_identity"),
        Index("quarantine_by_time", "tenant_id", "quarantined_at", "id"),
        Index("quarantine_by_owner", "tenant_id", "owner_id"),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    owner_id: UUID
    user_id: UUID | None = None
    agent_id: UUID | None = None
    app_id: UUID | None = None
    run_id: UUID | None = None
    content: bytes
    vector: bytes
    embedder: str
    tokens: list[int] = Field(sa_column=Column(ARRAY(BigInteger), nullable=False))
    identity_mac: bytes
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())
    quarantined_at: datetime = Field(sa_column=moment())
    expires_on: date | None = None
    event_id: UUID | None = None
    principal_id: UUID | None = None


class HistoryRow(SQLModel, table=True):
    """One step in the life of a memory. It stays after a delete, then without content."""

    __tablename__ = "history"
    __table_args__ = (
        Index("history_by_memory", "tenant_id", "memory_id", "seq"),
        Index("history_by_owner", "tenant_id", "owner_id"),
        Index("history_by_user", "tenant_id", "user_id", postgresql_where=text("user_id IS NOT NULL")),
        Index("history_by_agent", "tenant_id", "agent_id", postgresql_where=text("agent_id IS NOT NULL")),
        Index("history_by_app", "tenant_id", "app_id", postgresql_where=text("app_id IS NOT NULL")),
        Index("history_by_run", "tenant_id", "run_id", postgresql_where=text("run_id IS NOT NULL")),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    memory_id: UUID
    owner_id: UUID
    user_id: UUID | None = None
    agent_id: UUID | None = None
    app_id: UUID | None = None
    run_id: UUID | None = None
    change: str
    content: bytes | None = None
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())


class MessageRow(SQLModel, table=True):
    """One of the last messages of a scope, which extraction shows to the LLM for context."""

    __tablename__ = "messages"
    __table_args__ = (
        Index("messages_by_scope", "tenant_id", "scope_mac", "seq"),
        Index("messages_by_event", "tenant_id", "event_id"),
        Index("messages_by_owner", "tenant_id", "owner_id"),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    scope_mac: bytes
    owner_id: UUID
    event_id: UUID
    content: bytes
    created_at: datetime = Field(sa_column=moment())


class OutboxRow(SQLModel, table=True):
    """A memory whose index point may be behind. Written with the memory; gone once the index is durable."""

    __tablename__ = "outbox"

    id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    tenant_id: UUID = Field(foreign_key="tenants.id")
    memory_id: UUID
    version: int = Field(sa_type=BigInteger)
    created_at: datetime = Field(sa_column=moment())


class TaskRow(SQLModel, table=True):
    """Long work of the installation with its progress. Tenant-blind: counts and states, no user data."""

    __tablename__ = "tasks"

    id: UUID = Field(primary_key=True)
    kind: str
    state: str
    done: int = Field(sa_type=BigInteger)
    error: str | None = None
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())


class TombstoneRow(SQLModel, table=True):
    """A tombstone that is applied in this database. The journal outside has it too; see `service.storage.tombstones`.

    Tenant-blind, since it outlives what it tells of, a tenant included.
    """

    __tablename__ = "tombstones"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID
    kind: str
    ids: list[UUID] = Field(sa_column=Column(ARRAY(Uuid), nullable=False))
    sealed: bytes | None = Field(default=None, sa_type=LargeBinary)
    at: datetime = Field(sa_column=moment())


_SUBJECTS = ("owner_id", "user_id", "agent_id", "app_id", "run_id")
declare(Eraser(MemoryRow, subjects=_SUBJECTS, other=("event_id", "principal_id"), apart=True))
declare(Eraser(SupersessionRow, parents={"older_id": "memories", "newer_id": "memories"}))
declare(Eraser(ComparisonRow, parents={"memory_id": "memories"}))
declare(Eraser(QuarantineRow, subjects=_SUBJECTS, other=("event_id", "principal_id")))
declare(Eraser(HistoryRow, subjects=_SUBJECTS, parents={"memory_id": "memories"}))
declare(Eraser(MessageRow, subjects=("owner_id",), parents={"event_id": "events"}))
keep(OutboxRow, "ids and versions of memories, until the index has followed; it empties itself")
keep(TombstoneRow, "what stays done after an erasure: surrogates, so that a restored database is erased again")
