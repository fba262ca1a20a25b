"""The wire shapes of the open-source server's dialect: what is taken, and what is documented as given."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from service.settings import MOST_MESSAGES

_EXAMPLE: JsonDict = {
    "id": "0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b",
    "memory": "Likes tea with lemon",
    "hash": "5d1b7e2f0c9a4b3e8d6f7a1c2b3d4e5f",
    "metadata": {"source": "chat"},
    "created_at": "2026-01-31T09:30:00+00:00",
    "updated_at": "2026-01-31T09:30:00+00:00",
    "user_id": "alice",
    "role": "user",
}


class _Taken(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class OssMessage(_Taken):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system", "tool"] = Field(description="Who speaks.")
    content: str = Field(description="The text.")
    name: str | None = Field(None, description="The speaker; filters know it as `actor_id`.")


class OssSubjects(_Taken):
    """Whose memory it is."""

    user_id: str | None = Field(None, description="The user.", examples=["alice"])
    agent_id: str | None = Field(None, description="The agent.")
    app_id: str | None = Field(None, description="The app, which Mem0's own server does not know.")
    run_id: str | None = Field(None, description="The run or session.")


class OssAddIn(OssSubjects):
    """What to remember."""

    messages: list[OssMessage] = Field(
        max_length=MOST_MESSAGES, examples=[[{"role": "user", "content": "I like tea with lemon"}]]
    )
    metadata: dict[str, Any] | None = Field(None, description="JSON of your own; filters reach it.")
    infer: bool | None = Field(None, description="true (the default): the LLM extracts facts; false: as it stands.")
    expiration_date: str | None = Field(None, description="The last day it is visible: `YYYY-MM-DD`.")
    memory_type: str | None = Field(None, description="`procedural_memory`, with an agent, or nothing.")
    prompt: Any = Field(None, description="Ignored, with a warning: policy belongs to the installation.")


class OssUpdateIn(_Taken):
    """What to change; what is left out stays."""

    text: str | None = Field(None, description="The new text.", examples=["Likes coffee now"])
    metadata: dict[str, Any] | None = Field(None, description="Keys to add to the metadata, or to replace in it.")
    expiration_date: str | None = Field(None, description="The last day it is visible; null clears it.")


class OssSearchIn(OssSubjects):
    """What to look for."""

    query: str = Field(description="What to look for, by meaning and by words.", examples=["what does she drink?"])
    filters: dict[str, Any] | None = Field(
        None,
        description="Ids, and conditions on metadata keys, nestable with AND, OR, NOT.",
        examples=[{"user_id": "alice"}],
    )
    top_k: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="How many at most; 20 by default.")
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The least score; 0.1 by default, which memories of a time that is named need not reach."
    )
    explain: bool | None = Field(None, description="Adds `score_details`.")
    show_expired: bool | None = Field(None, description="Also what is past its expiration date.")


class OssResultOut(BaseModel):
    """What an add did to one memory."""

    id: str
    memory: str | None
    event: Literal["ADD", "UPDATE", "DELETE", "NONE", "QUARANTINED", "REJECTED"] = Field(
        description="`NONE`: it was there already. `QUARANTINED`: it waits for a reviewer; `REJECTED`: one said no."
    )
    actor_id: str | None = Field(None, description="The speaker, of a memory that is stored as it was said.")
    role: str | None = Field(None, description="The speaker's role, likewise.")


class OssAddOut(BaseModel):
    """How an add went. After `server.event_wait` seconds of extraction: no results, and the event to ask for."""

    results: list[OssResultOut]
    status: Literal["PENDING", "RUNNING"] | None = None
    event_id: str | None = None
    warnings: list[str] | None = Field(None, description="What was sent and ignored.")


class OssMemoryOut(BaseModel):
    """One memory; what is not set of its subjects is left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    memory: str
    hash: str = Field(description="MD5 of the text, as Mem0 gives it.")
    metadata: dict[str, Any] | None
    created_at: str
    updated_at: str
    score: float | None = None
    score_details: dict[str, float] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    app_id: str | None = None
    run_id: str | None = None
    actor_id: str | None = None
    role: str | None = None
    attributed_to: str | None = None
    expiration_date: str | None = None


class OssListOut(BaseModel):
    """Memories."""

    results: list[OssMemoryOut]


class OssHistoryOut(BaseModel):
    """One step in the life of a memory."""

    id: str
    memory_id: str
    old_memory: str | None
    new_memory: str | None
    event: Literal["ADD", "UPDATE", "DELETE", "NONE"]
    created_at: str
    updated_at: str
    is_deleted: bool
    actor_id: str | None
    role: str | None


class OssMessageOut(BaseModel):
    """What was done."""

    message: str


class OssEntityOut(BaseModel):
    """A user, agent, app or run that has memories."""

    id: str
    type: Literal["user", "agent", "app", "run"]
    total_memories: int
    created_at: str
    updated_at: str
