"""The wire shapes of legal holds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.lists import MOST_HELD, Filter

_FILTERS = "A filter as in a search: holds what matches now, and what is written later and matches then."


class HoldIn(BaseModel):
    """A hold to place. It covers either subjects (all that are named together), or `memory_ids`, or `filters`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"name": "case-2026-17", "reason": "Litigation hold, matter 2026-17", "user_id": "alice"},
                {
                    "name": "audit-q3",
                    "reason": "Tax audit of the third quarter",
                    "filters": {"metadata": {"channel": "finance"}},
                },
            ]
        },
    )

    name: str = Field(description="1 to 64 of a-z, 0-9, `.`, `_`, `-`; unique. Refused calls are told it.")
    reason: str = Field(description="Why, 1 to 2000 characters; kept encrypted.")
    user_id: str | None = Field(None, description="Hold what belongs to this user.")
    agent_id: str | None = Field(None, description="Hold what belongs to this agent.")
    app_id: str | None = Field(None, description="Hold what belongs to this app.")
    run_id: str | None = Field(None, description="Hold what belongs to this run.")
    memory_ids: Annotated[list[str], Field(max_length=MOST_HELD)] | None = Field(
        None, description="Hold these memories, 10,000 at most; all must exist."
    )
    filters: Filter = Field(None, description=_FILTERS)


class ReleaseIn(BaseModel):
    """Why a hold is released."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"reason": "Matter 2026-17 is settled"}]}
    )

    reason: str = Field(description="1 to 2000 characters; kept encrypted.")


class SignatureOut(BaseModel):
    """Who placed or released a hold."""

    principal_id: str = Field(description="Id of the key, or of the subject of the access token.")
    kind: str = Field(examples=["key"])
    person_id: str = Field(description="Stands for the person; the same for all their keys.")


class HoldOut(BaseModel):
    """A legal hold."""

    id: str
    name: str = Field(examples=["case-2026-17"])
    state: str = Field(description="`live` or `released`.", examples=["live"])
    covers: str = Field(description="`subjects`, `filter` or `memories`.", examples=["subjects"])
    user_id: str | None
    agent_id: str | None
    app_id: str | None
    run_id: str | None
    filters: dict[str, Any] | None
    reason: str
    members: int = Field(description="How many memories it covers or, once released, covered.")
    placed_at: str
    placed_by: SignatureOut
    released_at: str | None
    released_by: SignatureOut | None
    release_reason: str | None


class HoldsOut(BaseModel):
    """One page of holds, the newest first."""

    count: int
    next: str | None
    previous: str | None
    results: list[HoldOut]


class HoldMemberOut(BaseModel):
    """A memory that a hold covers."""

    id: str
    joined_at: str


class HoldMembersOut(BaseModel):
    """One page of a hold's members, by id."""

    count: int
    next: str | None
    previous: str | None
    results: list[HoldMemberOut]
