"""What goes into an extraction and what comes out of it: plain shapes, free of Mem0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from service.embeddings import Vector
from service.records import Message


@dataclass(frozen=True, slots=True)
class LlmSettings:
    """Which LLM to ask. `provider` and `config` are Mem0's: any of its providers, its config passed through.

    `timeout_seconds` bounds one call, whatever the provider's own client does. `concurrency` bounds the calls that are
    under way at once, those included that were given up and have not returned yet.
    """

    provider: str
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 60.0
    concurrency: int = 8

    @property
    def base_url(self) -> str | None:
        """The endpoint, where the config names one."""
        return next((str(url) for key, url in self.config.items() if key.endswith("base_url") and url), None)


@dataclass(frozen=True, slots=True)
class Recalled:
    """A memory that exists and is like the new messages; its text goes into the prompt. `score` is in [0, 1]."""

    id: UUID
    text: str = field(repr=False)
    score: float


class Reader(Protocol):
    """Reads what an extraction may see. It is bound to one scope and used by one thread at a time.

    Raises Unavailable while what it reads from is away: then the extraction may wait.
    """

    def similar(self, text: str, limit: int, *, vector: Vector) -> Sequence[Recalled]:
        """Return at most `limit` memories that are like `text`, best first. `vector` is the embedded text."""
        ...

    def last_messages(self, limit: int) -> Sequence[Message]:
        """Return the last messages before this call, at most `limit`, oldest first."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A memory as extracted, not stored yet. `attributed_to` is `user`, `assistant` or None."""

    id: UUID
    text: str = field(repr=False)
    vector: Vector = field(repr=False)
    attributed_to: str | None = None
    linked_memory_ids: tuple[UUID, ...] = ()
    categories: tuple[str, ...] = ()
    superseded_ids: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many memories the LLM offered, how many are staged, and why the others are not.

    Reasons: `too_many`, `too_long`, `empty`, `malformed`, `duplicate` (twice in one answer). What exists already is
    staged like all else: the record tells.
    """

    offered: int
    staged: int
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The tokens that the provider counted for one call."""

    prompt: int
    completion: int


def tokens_of(usage: TokenUsage | None) -> int:
    """Return all tokens of a call: none where the provider did not tell."""
    return 0 if usage is None else usage.prompt + usage.completion


@dataclass(frozen=True, slots=True, eq=False)
class Extraction:
    """All that Mem0 would have written: the memories, and the messages to keep as context of the next call."""

    drafts: Sequence[Draft]
    messages: Sequence[Message] = field(repr=False)
    counts: Counts
    usage: TokenUsage | None = None

    @property
    def asked(self) -> bool:
        """Whether the LLM was asked: it is not where nothing was said."""
        return bool(self.messages or self.drafts)
