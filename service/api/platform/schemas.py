"""The wire shapes of Mem0's Platform dialect: what is taken, strictly typed, and what is documented as given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from service.api.lists import MOST_PARTS, Filter, Names
from service.api.reading import SUBJECTS, Moment
from service.settings import MOST_MESSAGES

#: Names in `fields`: more than a memory has fields.
MOST_FIELDS: Final = 50

_EXAMPLE_MEMORY: JsonDict = {
    "id": "0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b",
    "memory": "Likes tea with lemon",
    "user_id": "alice",
    "agent_id": None,
    "app_id": None,
    "run_id": None,
    "hash": "5d1b7e2f0c9a4b3e8d6f7a1c2b3d4e5f",
    "metadata": {"source": "chat"},
    "categories": [],
    "expiration_date": None,
    "provenance": {
        "connector": "slack",
        "key_id": "0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a00",
        "event_id": "0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a01",
        "extracted": False,
    },
    "created_at": "2026-01-31T09:30:00+00:00",
    "updated_at": "2026-01-31T09:30:00+00:00",
}


class _Taken(BaseModel):
    """Something that is taken: types are not coerced, fields that are not known are ignored (clients send several)."""

    model_config = ConfigDict(extra="ignore", strict=True)


#: Types of parts that hold what was said, as chat completions and the Responses API call them.
_SAID: Final = ("text", "input_text", "output_text")
#: Types of parts by which an agent calls tools, is answered by them, or thinks, as makers of models and SDKs call them.
_UNSAID: Final = frozenset(
    {"tool_use", "tool_result", "tool_call", "tool-call", "tool-result", "thinking", "redacted_thinking", "reasoning"}
)


class Part(_Taken):
    """A part of a message; only text can be remembered."""

    type: str = Field(examples=["text"])
    text: str | None = None

    @property
    def is_said(self) -> bool:
        """Whether it is text."""
        return self.type in _SAID and self.text is not None

    @property
    def is_of_tools(self) -> bool:
        """Whether it is the agent's own work, in which nothing is said."""
        return self.type in _UNSAID


def _well_formed(value: Any) -> Any:
    """Refuse a list of parts for the first that is none, since the library would go on to tell of each."""
    for number, part in enumerate(value if isinstance(value, list) else ()):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise ValueError(f"part {number} must be an object with a type, as text")
        if not isinstance(part.get("text"), str | None):
            raise ValueError(f"part {number}: the text must be a text")
    return value


Parts = Annotated[list[Part], Field(max_length=MOST_PARTS), BeforeValidator(_well_formed)]
#: Roles of those that answer a call.
_TOOLS: Final = ("tool", "function")


def _is_text(value: Any) -> Any:
    """Refuse what Mem0's platform takes for an image or a document, in words and not by types that it is none of."""
    if isinstance(value, dict):
        raise ValueError("must be a text or a list of text parts: only text can be remembered, no image or document")
    return value


class MessageIn(_Taken):
    """One message of a conversation."""

    role: Literal["user", "assistant", "agent", "system", "developer", "tool", "function"]
    content: Annotated[str | Parts, BeforeValidator(_is_text)] = Field(
        description="The text, or a list of parts; those that are not text are left out. One that calls tools or "
        "answers a call may lack it."
    )
    name: str | None = Field(None, description="The speaker; filters know it as `actor_id`.")
    tool_calls: Any = Field(None, description="Not remembered; what is said beside them is.")
    function_call: Any = Field(None, description="Likewise.")

    @model_validator(mode="before")
    @classmethod
    def _without_text(cls, value: Any) -> Any:
        """Take the text that is lacking for an empty one where a transcript of an agent has none."""
        if isinstance(value, dict) and value.get("content") is None and _is_of_tools(value.get):
            return {**value, "content": ""}
        return value

    @property
    def is_of_tools(self) -> bool:
        """Whether it calls tools or answers a call, so that it need not say anything."""
        parts = () if isinstance(self.content, str) else self.content
        return _is_of_tools(partial(getattr, self)) or any(part.is_of_tools for part in parts)


def _is_of_tools(field: Callable[[str], Any]) -> bool:
    return field("role") in _TOOLS or bool(field("tool_calls") or field("function_call"))


class Subjects(_Taken):
    """Whose memory it is."""

    user_id: str | None = Field(None, description="The user that the memory belongs to.", examples=["alice"])
    agent_id: str | None = Field(None, description="The agent that the memory belongs to.")
    app_id: str | None = Field(None, description="The app that the memory belongs to.")
    run_id: str | None = Field(None, description="The run or session that the memory belongs to.")


class IdentityIn(BaseModel):
    """An account of a connector, which stands for the user that it is linked to."""

    model_config = ConfigDict(extra="forbid", strict=True)

    connector: str = Field(description="The connector.", examples=["slack"])
    account: str = Field(description="The account there, compared as it is written.", examples=["U024BE7LH"])


Account = Annotated[
    IdentityIn | None, Field(description="An account that stands for the user, instead of `user_id`; see connectors.")
]


class AddIn(Subjects):
    """What to remember."""

    messages: list[MessageIn] = Field(
        max_length=MOST_MESSAGES, examples=[[{"role": "user", "content": "I like tea with lemon"}]]
    )
    identity: Account = None
    filters: Filter = Field(None, description="The ids, where a client sends them here: in one place, not in both.")
    metadata: dict[str, Any] | None = Field(None, description="JSON of your own; filters reach it.")
    infer: bool | None = Field(None, description="true (the default): the LLM extracts facts; false: as it stands.")
    categories: Names | None = Field(None, description="Categories of what is added.")
    timestamp: Moment | None = Field(None, description="When it was said: seconds since 1970 or ISO 8601.")
    expiration_date: str | None = Field(None, description="The last day it is visible: `YYYY-MM-DD`.")
    custom_instructions: Any = Field(None, description="Ignored, with a warning: the project's settings decide.")
    agent_custom_instructions: Any = Field(None, description="Ignored, with a warning.")
    custom_categories: Any = Field(None, description="Ignored, with a warning.")
    structured_data_schema: Any = Field(None, description="Ignored, with a warning.")
    includes: Any = Field(None, description="Ignored, with a warning.")
    excludes: Any = Field(None, description="Ignored, with a warning.")
    prompt: Any = Field(None, description="Ignored, with a warning.")


class OldAddIn(AddIn):
    """What to remember, as older clients say it."""

    output_format: str | None = Field(None, description="`v1.0` answers a bare list, anything else `{results: […]}`.")


class _Narrowed(_Taken):
    """What searches and lists have in common."""

    filters: Filter = Field(
        None,
        description="Conditions, nestable with AND, OR, NOT. What is not mentioned is not constrained.",
        examples=[{"AND": [{"user_id": "alice"}]}],
    )
    identity: Account = None
    categories: Names | None = Field(None, description="Any of these categories.")
    metadata: dict[str, Any] | None = Field(None, description="Like `filters.metadata`.")
    show_expired: bool | None = Field(None, description="Also what is past its expiration date.")
    latest_only: bool | None = Field(None, description="Not what a newer memory supersedes.")
    fields: Annotated[list[str], Field(max_length=MOST_FIELDS)] | None = Field(
        None, description="Only these fields of each memory; its id is always there."
    )


class SearchFields(_Narrowed):
    """What to look for."""

    query: str = Field(description="What to look for, by meaning and by words.", examples=["what does she drink?"])
    top_k: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="How many at most; 10 by default.")
    limit: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Another name of `top_k`.")
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The least score; 0.1 by default, which memories of a time that is named need not reach."
    )
    reference_date: Moment | None = Field(None, description="The day of the question and of expiry; today by default.")
    explain: bool | None = Field(None, description="Adds `score_details`.")


class ListFields(_Narrowed):
    """What to list."""

    start_date: str | None = Field(None, description="Created on or after this day or moment.")
    end_date: str | None = Field(None, description="Created on or before this day or moment.")
    keywords: str | None = Field(None, description="Texts that contain this, whatever the case.")
    page: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="As in the query.")
    page_size: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="As in the query.")


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        for name in SUBJECTS:
            if value.get(name) is not None:
                raise ValueError(f"{name} does not stand at the top level here: put it into filters")
    return value


class SearchIn(SearchFields):
    """A search. Ids stand in `filters`, not at the top level."""

    _ids = model_validator(mode="before")(_without_ids)


class ListIn(ListFields):
    """A list. Ids stand in `filters`, not at the top level."""

    top_k: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Another name of `page_size`.")
    limit: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Likewise.")

    _ids = model_validator(mode="before")(_without_ids)


class OldSearchIn(SearchFields, Subjects):
    """A search as older clients say it: ids at the top level or in `filters`."""

    output_format: str | None = Field(None, description="`v1.1` answers `{results: […]}`, anything else a bare list.")


class OldListIn(ListFields, Subjects):
    """A list as older clients say it: ids at the top level or in `filters`."""

    top_k: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="How many at most, without pages.")
    limit: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Another name of `top_k`.")


class UpdateIn(_Taken):
    """What to change; what is left out stays."""

    text: str | None = Field(None, description="The new text.", examples=["Likes coffee now"])
    data: str | None = Field(None, description="Another name of `text`, which counts where both are given.")
    metadata: dict[str, Any] | None = Field(None, description="The new metadata, all of it.")
    timestamp: Moment | None = Field(None, description="When it was said: seconds since 1970 or ISO 8601.")
    expiration_date: str | None = Field(None, description="The last day it is visible; null clears it.")


class ProvenanceOut(BaseModel):
    """Where a memory comes from."""

    connector: str | None = Field(description="The connector that the key was bound to.")
    key_id: str | None = Field(description="The key that added it, or the id that the trail has for an access token.")
    event_id: str | None = Field(description="The event of the add.")
    extracted: bool = Field(description="Whether a language model wrote the text.")


class FoundMemory(BaseModel):
    """A memory in a list; with `fields` only its id and what was asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_MEMORY]})

    id: str
    memory: str = ""
    user_id: str | None = None
    agent_id: str | None = None
    app_id: str | None = None
    run_id: str | None = None
    hash: str = Field("", description="MD5 of the text, as Mem0 gives it.")
    metadata: dict[str, Any] = Field(default_factory=dict)
    categories: list[str] = Field(default_factory=list)
    expiration_date: str | None = None
    provenance: ProvenanceOut | None = None
    created_at: str = ""
    updated_at: str = ""


class MemoryOut(FoundMemory):
    """One memory."""

    memory: str
    user_id: str | None
    agent_id: str | None
    app_id: str | None
    run_id: str | None
    hash: str
    metadata: dict[str, Any]
    categories: list[str]
    expiration_date: str | None
    provenance: ProvenanceOut
    created_at: str
    updated_at: str


class ScoreDetails(BaseModel):
    """Where a score and a place in the order come from."""

    semantic: float
    keyword: float
    bm25: float
    fused: float
    neighbours: float
    time: float
    rank: float


class HitOut(FoundMemory):
    """A memory that was found."""

    score: float = Field(description="0 to 1.")
    score_details: ScoreDetails | None = None


class SearchOut(BaseModel):
    """The hits, the best first."""

    results: list[HitOut]


class _PageOut(BaseModel):
    count: int = Field(description="How many there are on all pages.")
    next: str | None = Field(description="URL of the next page.")
    previous: str | None = Field(description="URL of the page before.")


class ListOut(_PageOut):
    """One page of memories, the newest first."""

    results: list[FoundMemory]


class Data(BaseModel):
    """The text once more, where the Platform's clients read it."""

    memory: str | None


class ResultOut(BaseModel):
    """What an event did to one memory."""

    id: str
    event: Literal["ADD", "UPDATE", "DELETE", "NONE", "QUARANTINED", "REJECTED"] = Field(
        description="`NONE`: it was there already. `QUARANTINED`: it waits for a reviewer; `REJECTED`: one said no."
    )
    memory: str | None
    data: Data
    user_id: str | None
    agent_id: str | None
    app_id: str | None
    run_id: str | None
    actor_id: str | None
    role: str | None


class AddOut(BaseModel):
    """How an add went so far: `PENDING` while the LLM is being asked, `SUCCEEDED` with results when it is done."""

    message: str
    status: Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]
    event_id: str
    results: list[ResultOut] | None = None
    warnings: list[str] | None = Field(None, description="What was sent and ignored.")


class MessageOut(BaseModel):
    """What was done."""

    message: str


class DeletedOut(MessageOut):
    """What was deleted."""

    count: int


class HistoryOut(BaseModel):
    """One step in the life of a memory."""

    id: str
    memory_id: str
    input: list[dict[str, Any]] = Field(description="Empty: messages are not kept beside what was made of them.")
    old_memory: str | None
    new_memory: str | None
    user_id: str | None
    event: Literal["ADD", "UPDATE", "DELETE", "NONE"]
    metadata: dict[str, Any]
    created_at: str
    updated_at: str


class EventOut(BaseModel):
    """One add (or other deferred work) and how it went."""

    id: str
    event_type: str
    status: Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]
    payload: None = Field(description="Requests are not told again.")
    metadata: dict[str, Any] = Field(description="What there is to know beside: counts, tokens.")
    results: list[ResultOut]
    error: str | None = Field(description="Why it failed, was cancelled, or waits for another try.")
    code: str | None = Field(description="The stable name of that reason.")
    attempts: int = Field(description="How often the extraction was begun, but for tries that only missed a store.")
    created_at: str
    updated_at: str
    started_at: str | None
    completed_at: str | None
    latency: float | None = Field(description="Milliseconds from start to end.")


class EventsOut(_PageOut):
    """One page of events, the newest first."""

    results: list[EventOut]


class EntityOut(BaseModel):
    """A user, agent, app or run."""

    id: str = Field(description="The name, by which it can be deleted.")
    name: str
    type: Literal["user", "agent", "app", "run"]
    total_memories: int
    owner: str = Field(description="The tenant.")
    metadata: dict[str, Any]
    created_at: str
    updated_at: str


class EntitiesOut(_PageOut):
    """Entities, the oldest first: all of them, or one page where one is asked for."""

    total_users: int = Field(description="How many entities there are on all pages.")
    results: list[EntityOut]


class PingOut(BaseModel):
    """Where a key belongs."""

    status: Literal["ok"]
    org_id: str
    project_id: str = Field(description="The tenant.")
    user_email: None
