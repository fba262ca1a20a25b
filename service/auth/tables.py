"""Tables of API keys, and how what they say of people leaves them: the rows stay, since the trail names them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Text,
    and_,
    case,
    func,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as SqlUuid
from sqlmodel import Field, SQLModel

from service.scope import Scope
from service.storage.erasers import Eraser, declare
from service.storage.tables import moment


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
    owner_id: UUID | None = None
    owner: bytes | None = None
    created_at: datetime = Field(sa_column=moment())
    not_before: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    expires_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    last_used_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    revoked_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    must_name_user: bool = False
    replaced_by: UUID | None = None


keys_table: Final[Any] = ApiKeyRow.__table__  # type: ignore[attr-defined]


def keys_of_connector(connector: str) -> Select[tuple[UUID]]:
    """Return the query for the keys that are, or were, bound to a connector."""
    query: Select[tuple[UUID]] = select(keys_table.c.id).where(of_connector(connector))
    return query


def of_connector(connector: str) -> ColumnElement[bool]:
    """Return the condition that a key is bound to a connector."""
    condition: ColumnElement[bool] = keys_table.c.connector == connector
    return condition


def of_user_alone(subject_id: UUID) -> ColumnElement[bool]:
    """Return the condition that a key is bound to a user and to nobody else."""
    return and_(keys_table.c.user_ids.contains([subject_id]), func.cardinality(_without(subject_id)) == 0)


def _without(subject_id: UUID) -> Any:
    return func.array_remove(keys_table.c.user_ids, subject_id)


def _unbind(connection: Connection, scope: Scope, subject_id: UUID) -> int:
    """Take a user out of the keys that are bound to it, and the label, which may name it; revoke a key of it alone."""
    ended = func.coalesce(keys_table.c.revoked_at, case((of_user_alone(subject_id), func.now())))
    bound = update(keys_table).where(keys_table.c.user_ids.contains([subject_id]))
    return int(connection.execute(bound.values(user_ids=_without(subject_id), label=null(), revoked_at=ended)).rowcount)


def _revoke(connection: Connection, scope: Scope, connector: str) -> int:
    """Revoke the keys of a connector."""
    live = update(keys_table).where(of_connector(connector), keys_table.c.revoked_at.is_(None))
    return int(connection.execute(live.values(revoked_at=func.now())).rowcount)


def _strip(connection: Connection, scope: Scope) -> int:
    """Revoke every key of the tenant, without its label, its owner's name, its connector and whom it was bound to."""
    bare = {"label": null(), "owner": null(), "connector": null(), "user_ids": null()}
    ended = func.coalesce(keys_table.c.revoked_at, func.now())
    every = update(keys_table).where(keys_table.c.tenant_id == scope.tenant_id)
    return int(connection.execute(every.values(**bare, revoked_at=ended)).rowcount)


declare(
    Eraser(
        ApiKeyRow,
        subjects=("user_ids",),
        other=("created_by", "owner_id", "replaced_by"),
        connectors=("connector",),
        of_subject=_unbind,
        of_connector=_revoke,
        of_tenant=_strip,
    )
)
declare(Eraser(KeyIndexRow, other=("key_id",)))
