"""The wire shapes of key administration."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.policy.table import ROLES
from service.scope import Permission

_ROLES = ", ".join(f"`{role}`" for role in ROLES)
_PERMISSIONS = ", ".join(f"`{permission}`" for permission in Permission)


class KeyIn(BaseModel):
    """What a new key may do: a role or permissions, never more than the key that asks."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str | None = Field(None, description=f"One of {_ROLES}.", examples=["agent"])
    permissions: list[str] | None = Field(None, description=f"Any of {_PERMISSIONS}; instead of a role.")
    users: list[str] | None = Field(None, description="The only users that the key reaches; all when left out.")
    connector: str | None = Field(None, description="The connector that the key is for; the audit trail shows it.")
    expires_in: Annotated[int, Field(ge=1, le=36500)] | None = Field(None, description="Days that the key lives.")
    expires_at: str | None = Field(None, description="When the key ends, ISO 8601; instead of `expires_in`.")
    label: str | None = Field(None, description="A note of yours, kept encrypted.")


class KeyCreatedOut(BaseModel):
    """A new key. Its secret is in this answer and nowhere else."""

    id: str
    api_key: str = Field(examples=["mv_…"])
    tenant_id: str
    permissions: list[str]
    users: list[str] | None
    connector: str | None
    expires_at: str | None


class KeyOut(BaseModel):
    """A key as it is listed."""

    id: str
    prefix: str = Field(description="The first characters of the secret, to tell keys apart.")
    permissions: list[str]
    bound_to_users: int | None = Field(description="To how many users the key is bound; null: it is not.")
    connector: str | None
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class KeysOut(BaseModel):
    """The tenant's keys, the oldest first."""

    count: int
    results: list[KeyOut]
