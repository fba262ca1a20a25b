"""The wire shapes of the audit trail."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class AuditEntryOut(BaseModel):
    """One row of the trail. People are named by surrogates, values by keyed HMACs."""

    id: str
    at: str
    event: str = Field(description="What happened, of a closed list.", examples=["memory:searched"])
    outcome: str = Field(description="`done`, `refused`, `not_found` or `failed`.")
    tenant_id: str
    principal_id: str | None = Field(description="The key that called; null: the service or the installation itself.")
    acting_subject_id: str | None = Field(description="The user for whom the key acts.")
    subject_ids: list[str] = Field(description="The users, agents, apps and runs concerned, users first.")
    connector: str | None
    client: str = Field(description="What the client calls itself; untrusted.")
    face: str
    request_id: str
    permissions: list[str]
    purpose: str | None = Field(description="What the caller said that the call is for (`X-Purpose`); untrusted.")
    target_ids: list[str] = Field(description="What was named in the call.")
    result_ids: list[str] = Field(description="What came out of it: the memories that were shown or made.")
    query_mac: str | None
    value_mac: str | None = Field(description="64 hexadecimal digits for each text, in the order of the results.")
    detail: dict[str, Any]
    seq: int
    xid: int


class SubjectOut(BaseModel):
    """Who a surrogate stands for."""

    type: str
    name: str


class AuditPageOut(BaseModel):
    """Some rows of the trail."""

    results: list[AuditEntryOut]
    next: str | None = Field(description="URL of the next rows; null at the end.")
    next_cursor: str | None
    subjects: dict[str, SubjectOut] | None = Field(description="With `names`: who the surrogates are, if they exist.")


class KnownMemoryOut(BaseModel):
    """A memory that existed at the moment."""

    memory_id: str
    added_at: str
    changed_at: str | None
    expires_on: str | None
    shown: bool = Field(description="Whether the answer to the request held it.")


class KnownOut(BaseModel):
    """What was known at a moment."""

    at: str
    subject_ids: list[str]
    total: int
    memories: list[KnownMemoryOut]
    shown: list[str] = Field(description="The memories that the answer to the request was made of, in its order.")
    trail_from: str | None = Field(
        description="Since when the trail tells, where older parts were dropped: what was added before is not told."
    )


class MatchIn(BaseModel):
    """A value, and against what it is held: exactly one of the others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    value: Annotated[str, Field(min_length=1, max_length=20_000, description="The exact query or memory text.")]
    audit_id: str | None = Field(None, description="One row of the trail.")
    memory_id: str | None = Field(None, description="All rows of a memory.")
    user_id: str | None = Field(None, description="All rows of a user.")
    agent_id: str | None = Field(None, description="All rows of an agent.")
    app_id: str | None = Field(None, description="All rows of an app.")
    run_id: str | None = Field(None, description="All rows of a run.")
    subject_id: str | None = Field(None, description="All rows of a subject, by its surrogate.")


class MatchOut(BaseModel):
    """A row in which the value stands."""

    audit_id: str
    at: str
    event: str
    kind: str = Field(description="`query` or `text`.")
    memory_id: str | None


class MatchesOut(BaseModel):
    """Where the value stands."""

    matches: list[MatchOut]
    checked: int = Field(description="Rows that were looked at, the newest 10,000 at most.")
    unmatchable: int = Field(description="Rows among them whose key was destroyed with their subject.")
