"""Tables of tenants and subjects."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from service.storage.erasers import Eraser, declare, keep
from service.storage.tables import moment


class TenantRow(SQLModel, table=True):
    """A tenant. Tenant-blind: it is read before a tenant is known, and holds no user data."""

    __tablename__ = "tenants"

    id: UUID = Field(primary_key=True)
    name: str = Field(unique=True)
    status: str
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())
    #: Grows, by triggers, whenever a credential of the tenant that was checked earlier is to be checked again.
    version: int = Field(default=0, sa_type=BigInteger)
    #: Limits of its own, by name; null is no limit, and what is missing is the installation's default.
    limits: dict[str, int | None] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default="{}")
    )
    #: Of its texts, for keyword search; null is the installation's.
    language: str | None = None
    #: Set, both, from a change of the language until the words of all memories were taken anew.
    former_language: str | None = None
    language_changed_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class SubjectRow(SQLModel, table=True):
    """A user, agent, app or run. All other tables and the trail refer to it by this random id only."""

    __tablename__ = "subjects"
    __table_args__ = (
        UniqueConstraint("tenant_id", "kind", "name_mac", name="subjects_name"),
        Index("subjects_by_time", "tenant_id", "created_at", "id", postgresql_where=text("erasing_at IS NULL")),
        Index("subjects_erasing", "tenant_id", postgresql_where=text("erasing_at IS NOT NULL")),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    kind: str
    name_mac: bytes
    name: bytes
    created_at: datetime = Field(sa_column=moment())
    erasing_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class ProjectRow(SQLModel, table=True):
    """What a tenant decides about its memories. `content` is sealed under the tenant's key: it names no subject."""

    __tablename__ = "projects"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    content: bytes
    review_required: bool
    updated_at: datetime = Field(sa_column=moment())


class IdentityRow(SQLModel, table=True):
    """An account of a connector that stands for a user, sealed under the user's key.

    `account_mac` finds it by connector and account, `name_mac` by the account as if it were the id of a user.
    """

    __tablename__ = "identities"
    __table_args__ = (
        UniqueConstraint("tenant_id", "account_mac", name="identities_account"),
        ForeignKeyConstraint(["tenant_id", "user_id"], ["subjects.tenant_id", "subjects.id"]),
        Index("identities_by_user", "tenant_id", "user_id"),
        Index("identities_by_name", "tenant_id", "name_mac"),
    )

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    connector: str
    account_mac: bytes
    name_mac: bytes
    account: bytes
    user_id: UUID
    principal_id: UUID
    created_at: datetime = Field(sa_column=moment())


declare(Eraser(SubjectRow, subjects=("id",), apart=True))
# Its name is taken from it when the tenant is deleted: see `Tenants`.
keep(TenantRow, "the trail of a deleted tenant belongs to its id")
# It names no subject: it goes with its tenant.
declare(Eraser(ProjectRow))
declare(Eraser(IdentityRow, subjects=("user_id",), other=("principal_id",), connectors=("connector",)))
