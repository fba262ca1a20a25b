"""Our own shapes: what the actions take and give, free of any face's wire format and of any store's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID

from service.scope import SubjectKind

Json = Any
T = TypeVar("T")
Metadata = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class SubjectNames:
    """The ids, as the caller writes them, of the user, agent, app and run that a memory belongs to."""

    user_id: str | None = None
    agent_id: str | None = None
    app_id: str | None = None
    run_id: str | None = None

    @classmethod
    def of(cls, pairs: Iterable[tuple[SubjectKind, str]]) -> SubjectNames:
        """Return the names of (kind, name) pairs, one of a kind at most."""
        return cls(**{f"{kind.value}_id": name for kind, name in pairs})

    def items(self) -> list[tuple[SubjectKind, str]]:
        """Return the (kind, name) pairs that are set, the owner of the encryption key first."""
        pairs = (
            (SubjectKind.USER, self.user_id),
            (SubjectKind.AGENT, self.agent_id),
            (SubjectKind.APP, self.app_id),
            (SubjectKind.RUN, self.run_id),
        )
        return [(kind, name) for kind, name in pairs if name is not None]

    def __bool__(self) -> bool:
        return bool(self.items())


@dataclass(frozen=True, slots=True)
class Identity:
    """An account of a connector (a Slack id, an e-mail address), compared as it is written."""

    connector: str
    account: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `name` is the speaker, kept as the memory's actor."""

    role: str
    content: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class NewMemories:
    """What a caller asks to remember."""

    messages: Sequence[Message]
    subjects: SubjectNames
    metadata: Metadata = field(default_factory=dict)
    infer: bool = True
    categories: Sequence[str] = ()
    occurred_at: datetime | None = None
    expires_on: date | None = None
    procedural: bool = False


@dataclass(frozen=True, slots=True)
class Category:
    """A category that a tenant wants its memories sorted into; the description is for the language model."""

    name: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a memory comes from: the event that made it, the key or token that asked, and the key's connector.

    `extracted` tells that a language model wrote the text, not the caller.
    """

    connector: str | None = None
    principal_id: UUID | None = None
    event_id: UUID | None = None
    extracted: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """One memory, decrypted, as its owner sees it. Times are UTC; `expires_on` is the last day it is visible."""

    id: UUID
    text: str
    subjects: SubjectNames
    metadata: Metadata
    categories: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    expires_on: date | None = None
    actor: str | None = None
    role: str | None = None
    inferred: bool = False
    version: int = 1
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, slots=True)
class Signals:
    """Where a hit's score and place come from: cosine in [-1, 1], keyword in [0, 1], raw BM25, and their fused score.

    `neighbours` and `time` are what was added to the order for what stands beside the memory and for when it was;
    `rank` is what the order goes by.
    """

    semantic: float
    keyword: float
    bm25: float
    fused: float
    neighbours: float = 0.0
    time: float = 0.0
    rank: float = 0.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that was found, with its score in [0, 1]."""

    memory: Memory
    score: float
    signals: Signals


class Change(StrEnum):
    """What happened to one memory. The last two stand in events only: it waits for a reviewer, or one said no."""

    ADD = "ADD"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    NONE = "NONE"
    QUARANTINED = "QUARANTINED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One step in the life of a memory. Texts are None once the memory was deleted."""

    id: UUID
    memory_id: UUID
    change: Change
    old_text: str | None
    new_text: str | None
    subjects: SubjectNames
    metadata: Metadata
    created_at: datetime
    updated_at: datetime
    actor: str | None = None
    role: str | None = None


class EventStatus(StrEnum):
    """The state of an event. The last three are final."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether the event can still change."""
        return self in (EventStatus.SUCCEEDED, EventStatus.FAILED, EventStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class EventResult:
    """What an event did to one memory. `text` is None when the memory is gone by now."""

    memory_id: UUID
    change: Change
    text: str | None = None
    subjects: SubjectNames = field(default_factory=SubjectNames)
    actor: str | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One add (or other deferred work) and how it went. `reason` never holds content."""

    id: UUID
    kind: str
    status: EventStatus
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    results: Sequence[EventResult] = ()
    code: str | None = None
    reason: str | None = None
    attempts: int = 0
    notes: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entity:
    """A user, agent, app or run with the number of its visible memories."""

    id: UUID
    kind: SubjectKind
    name: str
    memories: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; `total` counts all pages."""

    items: Sequence[T]
    total: int
    number: int
    size: int
