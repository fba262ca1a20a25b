"""Shapes of the record: a memory, its history and what the index needs, opened, with subjects as surrogates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import orjson

from service.records import Change, Metadata


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """A memory with its subjects as surrogates, opened."""

    id: UUID
    version: int
    user_id: UUID | None
    agent_id: UUID | None
    app_id: UUID | None
    run_id: UUID | None
    text: str
    metadata: Metadata
    categories: tuple[str, ...]
    actor: str | None
    role: str | None
    inferred: bool
    created_at: datetime
    updated_at: datetime
    expires_on: date | None
    event_id: UUID | None = None
    principal_id: UUID | None = None
    connector: str | None = None
    linked_ids: tuple[UUID, ...] = ()
    #: Those of the linked ones that it was said to supersede; `service.storage.superseding` tells what holds now.
    supersedes: tuple[UUID, ...] = ()
    #: When it was stored here, which nobody can choose; None before it is.
    ingested_at: datetime | None = None
    #: Its place in the line of its subjects (`service.storage.places`); what was stored before has none.
    place: int | None = None

    @property
    def owner_id(self) -> UUID:
        """The subject whose key seals the content."""
        return self.subject_ids()[0]

    @property
    def searchable(self) -> str:
        """The text as it is searched: who said it is part of what was said."""
        return searchable(self.text, self.actor)

    def subject_ids(self) -> list[UUID]:
        """Return the surrogates that are set, the owner first."""
        return [one for one in (self.user_id, self.agent_id, self.app_id, self.run_id) if one is not None]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What the index needs to know of a memory: its row, and its vector opened."""

    memory: StoredMemory
    vector: np.ndarray
    embedder: str
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """One step of a memory's life, opened."""

    id: UUID
    memory_id: UUID
    change: Change
    old_text: str | None
    new_text: str | None
    metadata: Metadata
    subject_ids: tuple[UUID, ...]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Slice:
    """Which rows of a list: how many to skip and how many to give."""

    skip: int
    size: int


def content_of(memory: StoredMemory) -> dict[str, Any]:
    """Return what of a memory is sealed, as JSON."""
    return {
        "text": memory.text,
        "metadata": memory.metadata,
        "categories": list(memory.categories),
        "actor": memory.actor,
        "role": memory.role,
        "inferred": memory.inferred,
        "connector": memory.connector,
        "links": [str(one) for one in memory.linked_ids],
        **({"supersedes": [str(one) for one in memory.supersedes]} if memory.supersedes else {}),
    }


def memory_of(row: Any, content: dict[str, Any]) -> StoredMemory:
    """Return a memory from its row and its opened content."""
    return StoredMemory(
        id=row.id,
        version=row.version,
        user_id=row.user_id,
        agent_id=row.agent_id,
        app_id=row.app_id,
        run_id=row.run_id,
        text=content["text"],
        metadata=content["metadata"],
        categories=tuple(content["categories"]),
        actor=content["actor"],
        role=content["role"],
        inferred=content["inferred"],
        created_at=row.created_at,
        updated_at=row.updated_at,
        expires_on=row.expires_on,
        event_id=row.event_id,
        principal_id=row.principal_id,
        # Content of earlier releases does not tell it.
        connector=content.get("connector"),
        linked_ids=tuple(UUID(one) for one in content["links"]),
        supersedes=tuple(UUID(one) for one in content.get("supersedes", ())),
        # What waits for a reviewer has not come into the record yet.
        ingested_at=getattr(row, "ingested_at", None),
        place=getattr(row, "place", None),
    )


def identifying(memory: StoredMemory, text: str) -> bytes:
    """Return what makes a memory the one it is, with the text in the form that is given: all of it but its times."""
    subjects = (memory.user_id, memory.agent_id, memory.app_id, memory.run_id)
    parts = [
        [None if one is None else str(one) for one in subjects],
        text,
        memory.metadata,
        memory.actor,
        memory.role,
        sorted(memory.categories),
        memory.expires_on,
    ]
    return orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)


def searchable(text: str, actor: str | None) -> str:
    """Return the text that is embedded and indexed for a memory.

    Measured on LoCoMo: with the speaker's name in it, dense recall@10 is 0.51; without, 0.29.
    """
    return f"{actor}: {text}" if actor else text
