"""The wire shapes of erasures."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ErasureIn(BaseModel):
    """What is to be erased: exactly one of these."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"user_id": "alice"}]})

    user_id: str | None = Field(None, description="The user, with all memories that carry it.")
    agent_id: str | None = Field(None, description="The agent, likewise.")
    app_id: str | None = Field(None, description="The app, likewise.")
    run_id: str | None = Field(None, description="The run, likewise.")
    connector: str | None = Field(
        None, description="The connector was removed: all that came through it, by `metadata.connector` or by the key."
    )


class ErasureOut(BaseModel):
    """An erasure and how far it is. It names surrogates, not the person."""

    id: str
    kind: str = Field(description="`user`, `agent`, `app`, `run`, `connector` or `tenant`.")
    status: str = Field(
        description="`scheduled` until `due_at`, `running` while rows leave, `purging` until files are rewritten,"
        " `completed` once the receipt is there."
    )
    subject_id: str | None = Field(description="The surrogate by which the audit trail names who is erased.")
    connector: str | None
    due_at: str | None = Field(description="Not before this: a minimum retention keeps something of it.")
    blocked_by: str | None = Field(description="Why a due erasure was put off: `legal_hold` or `minimum_retention`.")
    requested_at: str
    begun_at: str | None
    rows_removed_at: str | None
    completed_at: str | None
    removed: dict[str, int] = Field(description="How many rows of which table were removed so far.")
    receipt: dict[str, Any] | None = Field(description="The signed receipt: `receipt` and `signatures`.")


class ErasuresOut(BaseModel):
    """A page of erasures, the newest first."""

    count: int
    next: str | None
    previous: str | None
    results: list[ErasureOut]
