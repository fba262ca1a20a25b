"""The wire shapes of key administration."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.api.lists import Names
from service.policy.table import ROLES
from service.scope import Permission

_ROLES = ", ".join(f"`{role}`" for role in ROLES)
_PERMISSIONS = ", ".join(f"`{permission}`" for permission in Permission)


class KeyIn(BaseModel):
    """What a new key may do: a role or permissions, never more than the key that asks."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str | None = Field(None, description=f"One of {_ROLES}.", examples=["agent"])
    permissions: Names | None = Field(None, description=f"Any of {_PERMISSIONS}; instead of a role.")
    users: Names | None = Field(None, description="The only users that the key reaches; all when left out.")
    connector: str | None = Field(None, description="The connector that the key is for; the audit trail shows it.")
    not_before: str | None = Field(None, description="When the key begins to work, ISO 8601; at once when left out.")
    acting: str | None = Field(
        None,
        description="`required`: the key of a system agent, which names the acting user of every call on memories in "
        "the header `X-Acting-User`.",
        examples=["required"],
    )
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
    not_before: str | None
    expires_at: str | None
    acting: str | None


class RotateIn(BaseModel):
    """How a key is rotated."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap: Annotated[int, Field(ge=0, le=7_776_000)] | None = Field(
        None, description="Seconds that the old key goes on working; a day when left out, 0 for not at all."
    )
    expires_in: Annotated[int, Field(ge=1, le=36500)] | None = Field(
        None, description="Days that the new key lives; left out: it ends when the old one would have ended."
    )


class RotatedOut(KeyCreatedOut):
    """The successor of a key. Its secret is in this answer and nowhere else."""

    replaces: str = Field(description="Id of the old key.")
    old_expires_at: str = Field(description="When the old key ends.")


class ChangeIn(BaseModel):
    """What a key may do from now on: a role or permissions."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str | None = Field(None, description=f"One of {_ROLES}.", examples=["reader"])
    permissions: Names | None = Field(None, description=f"Any of {_PERMISSIONS}; instead of a role.")


class ChangedOut(BaseModel):
    """What a key may do now."""

    id: str
    permissions: list[str]


class KeyOut(BaseModel):
    """A key as it is listed."""

    id: str
    prefix: str = Field(description="The first characters of the secret, to tell keys apart.")
    permissions: list[str]
    bound_to_users: int | None = Field(description="To how many users the key is bound; null: it is not.")
    connector: str | None
    created_at: str
    not_before: str | None
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None
    acting: str | None = Field(description="`required`: the key of a system agent.")
    replaced_by: str | None = Field(description="Id of the key that it was rotated to.")
    owner: str | None = Field(description="The person whose key it is, as the command line was told.")
    label: str | None = Field(
        description="The note that it was made with; null where it does not open any more, as after the erasure of a "
        "user whom the key is bound to."
    )


class KeysOut(BaseModel):
    """The tenant's keys, the oldest first."""

    count: int
    results: list[KeyOut]
