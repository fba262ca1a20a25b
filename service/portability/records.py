"""Shapes of what is imported, whatever the source: subjects, memories with history, and steps of what is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from service.records import Change, SubjectNames
from service.scope import SubjectKind
from service.storage.superseding import Link


@dataclass(frozen=True, slots=True)
class IncomingSubject:
    """A user, agent, app or run that may have no memories."""

    kind: SubjectKind
    name: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class IncomingHistory:
    """A step of a memory's life. Where the memory itself does not come along, `subjects` say whose it was."""

    id: UUID
    memory_id: UUID
    change: Change
    content: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime
    subjects: SubjectNames = field(default_factory=SubjectNames)


@dataclass(frozen=True, slots=True)
class IncomingMemory:
    """A memory with what its source says of it; `more` is content that only a later release knows.

    `supersedes` is what it was said to supersede when it was made, `holding` what holds now, to it and from it; None
    where the source does not tell.
    """

    id: UUID
    text: str
    subjects: SubjectNames
    created_at: datetime
    updated_at: datetime
    metadata: Mapping[str, Any] = field(default_factory=dict)
    categories: tuple[str, ...] = ()
    actor: str | None = None
    role: str | None = None
    inferred: bool = False
    links: tuple[UUID, ...] = ()
    supersedes: tuple[UUID, ...] = ()
    holding: tuple[Link, ...] | None = None
    expires_on: date | None = None
    version: int = 1
    more: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[IncomingHistory] = ()


Incoming = IncomingSubject | IncomingMemory | IncomingHistory


@dataclass(frozen=True, slots=True)
class Placed:
    """Something to import and where it stands in its source, for messages."""

    where: str
    what: Incoming


class Unreadable(ValueError):
    """A line or row of a source that cannot be understood: where, and why. Never what it holds."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why
