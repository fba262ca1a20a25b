"""Wire shapes of the MCP tools: what they take and what they answer, with the descriptions that agents read."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from service.memories.interactions import USUAL_QUERY, USUAL_TOKENS
from service.settings import MOST_MESSAGES
from service.strict_json import LARGE, strict_value


def _spelled_out(value: Any, info: ValidationInfo) -> Any:
    """Return the object or list that a text spells out.

    Some clients, Claude Desktop among them, put JSON into a text wherever an object or a list is asked for, and Mem0's
    own server reads it. What is large is left as it is, and refused: it would be read where everybody waits.
    """
    if not isinstance(value, str) or len(value) > LARGE or value.lstrip()[:1] not in ("{", "["):
        return value
    return strict_value(value, str(info.field_name))


#: An argument that is an object or a list.
Structured = BeforeValidator(_spelled_out)
UserId = Annotated[str | None, Field(description="The user whose memory it is.")]
NeededUserId = Annotated[
    str | None, Field(description="The user it is about. Needed, unless your key is bound to one.")
]
AgentId = Annotated[str | None, Field(description="The agent whose memory it is.")]
AppId = Annotated[str | None, Field(description="The app whose memory it is.")]
RunId = Annotated[str | None, Field(description="The run (session) whose memory it is.")]
MemoryId = Annotated[str, Field(description="The id of the memory, a UUID, as search_memories and others give it.")]
Filters = Annotated[
    dict[str, Any] | None,
    Structured,
    Field(
        description=(
            'What the memories must meet, for instance {"user_id": "alice"} or {"AND": [{"user_id": "alice"}, '
            '{"metadata": {"connector": "slack"}}, {"created_at": {"gte": "2026-01-01"}}]}. Keys: user_id, agent_id, '
            "app_id, run_id, actor_id, created_at, updated_at, expiration_date, text, keywords, categories, metadata, "
            "memory_ids; AND, OR and NOT join. Operators: eq, ne, in, exists, gt, gte, lt, lte, contains, icontains. "
            '"*" means "is set". Without filters: everything you may see.'
        )
    ),
]
Page = Annotated[int, Field(ge=1, le=1_000_000, description="The page, counted from 1.")]
PageSize = Annotated[int, Field(ge=1, le=1000, description="Items on one page.")]


class _Input(BaseModel):
    """Arguments of a tool; one that the tool does not know is an error, so that a wrong name is not passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _is_text(cls, value: object) -> object:
        """Refuse what JSON can spell and UTF-8 cannot, before it gets to where a text is encoded."""
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("holds half a surrogate pair, which is not valid Unicode text") from None
        return value


class MessageInput(_Input):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system"] = "user"
    content: str
    name: str | None = Field(None, description="The speaker, kept as the memory's actor.")


class IdentityInput(_Input):
    """An account of a connector."""

    connector: str = Field(description="The connector, for instance 'slack'.")
    account: str = Field(description="The account there, for instance 'U024BE7LH'.")


Account = Annotated[
    IdentityInput | None,
    Structured,
    Field(description="An account that is linked to the user, instead of user_id."),
]


class Subjects(_Input):
    """Whose memory it is."""

    user_id: UserId = None
    agent_id: AgentId = None
    app_id: AppId = None
    run_id: RunId = None


class AddMemoryInput(Subjects):
    """Arguments of add_memory."""

    identity: Account = None
    text: str | None = Field(None, description="What to remember. Needed unless messages are given.")
    messages: Annotated[list[MessageInput] | None, Structured] = Field(
        None,
        max_length=MOST_MESSAGES,
        description="A conversation to remember, taken instead of text, the oldest message first.",
    )
    metadata: Annotated[dict[str, Any] | None, Structured] = Field(
        None, description='Facts to filter by later, for instance {"connector": "slack", "channel": "#sales"}.'
    )
    infer: bool = Field(
        True,
        description="true: facts are extracted from the text by a language model, in the background. "
        "false: the text is stored as it is, at once.",
    )


class SearchMemoriesInput(_Input):
    """Arguments of search_memories."""

    query: str = Field(description="What to look for, in natural language; meaning and words both count.")
    filters: Filters = None
    identity: Account = None
    limit: int = Field(10, ge=1, le=1000, description="Hits to return at most.")


class GetMemoriesInput(_Input):
    """Arguments of get_memories."""

    filters: Filters = None
    identity: Account = None
    page: Page = 1
    page_size: PageSize = 50


class MemoryIdInput(_Input):
    """Arguments of get_memory and delete_memory."""

    memory_id: MemoryId


class UpdateMemoryInput(_Input):
    """Arguments of update_memory."""

    memory_id: MemoryId
    text: str = Field(description="The new text. It replaces the old one, which stays in the history.")
    metadata: Annotated[dict[str, Any] | None, Structured] = Field(
        None, description="New metadata, replacing all of the old. Omit to keep."
    )


class PageInput(_Input):
    """Arguments of list_entities and list_events."""

    page: Page = 1
    page_size: PageSize = 50


class EventIdInput(_Input):
    """Arguments of get_event_status."""

    event_id: str = Field(description="The id of the event, as add_memory gave it.")


class GetUserContextInput(_Input):
    """Arguments of get_user_context."""

    query: str = Field(USUAL_QUERY, description="What the user says or asks now; the context is chosen for it.")
    user_id: NeededUserId = None
    identity: Account = None
    connectors: Annotated[list[str] | None, Structured] = Field(
        None,
        min_length=1,
        max_length=50,
        description="Only memories from these connectors (metadata.connector). Omit for all.",
    )
    max_tokens: int = Field(
        USUAL_TOKENS,
        ge=50,
        le=32_000,
        description="Budget of the context in tokens, estimated at four characters each.",
    )


class StoreInteractionSummaryInput(_Input):
    """Arguments of store_interaction_summary."""

    summary: str = Field(description="What happened and was agreed, as it shall be found later.")
    channel: str = Field(
        min_length=1, max_length=255, description="Where it happened, for instance '#sales' or 'call'."
    )
    connector: str | None = Field(
        None, min_length=1, max_length=255, description="What it came through, for instance 'slack'."
    )
    labels: Annotated[list[str] | None, Structured] = Field(
        None,
        max_length=2_000,
        description="What kind of interaction it was, kept in metadata.labels, for instance escalation, decision, "
        "preference, bug_report; interaction_summary is added by itself.",
    )
    user_id: NeededUserId = None
    identity: Account = None


class MemoryOutput(BaseModel):
    """One memory. Times are UTC."""

    id: str
    memory: str = Field(description="The text.")
    user_id: str | None = None
    agent_id: str | None = None
    app_id: str | None = None
    run_id: str | None = None
    metadata: dict[str, Any]
    categories: list[str]
    created_at: datetime
    updated_at: datetime
    expiration_date: date | None = Field(None, description="The last day on which it is visible.")


class HitOutput(MemoryOutput):
    """A memory that was found."""

    score: float = Field(description="From 0 to 1; higher is better.")


class HitsOutput(BaseModel):
    """Answer of search_memories, the best hit first."""

    results: list[HitOutput]


class MemoriesOutput(BaseModel):
    """Answer of get_memories, the newest first."""

    count: int = Field(description="Memories on all pages.")
    page: int
    page_size: int
    has_more: bool
    results: list[MemoryOutput]


class ChangeOutput(BaseModel):
    """What happened to one memory."""

    id: str
    event: Literal["ADD", "UPDATE", "DELETE", "NONE", "QUARANTINED", "REJECTED"] = Field(
        description="NONE: it was known already. QUARANTINED: it waits for a reviewer; REJECTED: one said no."
    )
    memory: str | None = Field(None, description="The text; null when the memory is gone by now.")


class AddOutput(BaseModel):
    """Answer of add_memory."""

    message: str
    status: Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]
    event_id: str
    results: list[ChangeOutput]


class DeletedOutput(BaseModel):
    """Answer of the deleting tools."""

    message: str
    deleted: int = Field(description="How many memories were deleted.")


class EntityOutput(BaseModel):
    """A user, agent, app or run."""

    id: str
    type: Literal["user", "agent", "app", "run"]
    name: str = Field(description="The id to use as user_id, agent_id, app_id or run_id.")
    total_memories: int
    created_at: datetime
    updated_at: datetime


class EntitiesOutput(BaseModel):
    """Answer of list_entities."""

    count: int
    page: int
    page_size: int
    has_more: bool
    results: list[EntityOutput]


class EventOutput(BaseModel):
    """One add and how it went."""

    id: str
    event_type: str
    status: Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]
    results: list[ChangeOutput]
    error: str | None = Field(None, description="Why it failed or was cancelled.")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None


class EventsOutput(BaseModel):
    """Answer of list_events, the newest first."""

    count: int
    page: int
    page_size: int
    has_more: bool
    results: list[EventOutput]


class SnippetOutput(BaseModel):
    """One memory of a context."""

    id: str
    text: str
    score: float
    connector: str | None = None
    channel: str | None = None
    created_at: datetime
    updated_at: datetime
    tokens: int = Field(description="Estimated tokens that it takes in the context.")
    truncated: bool = Field(description="Whether the context holds only its beginning.")


class ContextOutput(BaseModel):
    """Answer of get_user_context."""

    context: str = Field(description="Text to put into a prompt as it is; empty when nothing was found.")
    snippets: list[SnippetOutput] = Field(description="What the context is made of, the best first.")
    tokens: int = Field(description="Estimated tokens of the context.")
    max_tokens: int
    duplicates: int = Field(description="Hits that were left out because they say the same as another.")
    left_out: int = Field(description="Hits that did not fit into the budget.")


class SummaryOutput(BaseModel):
    """Answer of store_interaction_summary."""

    id: str
    status: Literal["stored", "already known"]
    event_id: str
