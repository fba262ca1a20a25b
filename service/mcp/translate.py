"""Translates between records and the wire shapes of the MCP tools. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from service.errors import MalformedId
from service.mcp.schemas import (
    ChangeOutput,
    ContextOutput,
    EntityOutput,
    EventOutput,
    HitOutput,
    IdentityInput,
    MemoryOutput,
    SnippetOutput,
    Subjects,
)
from service.memories.context import Context, source
from service.memories.limits import check_names
from service.records import Entity, Event, EventResult, Hit, Identity, Memory, Page, SubjectNames

T = TypeVar("T")


def names_of(subjects: Subjects) -> SubjectNames:
    """Return the subjects that a tool's arguments name."""
    return SubjectNames(subjects.user_id, subjects.agent_id, subjects.app_id, subjects.run_id)


def identity_of(given: IdentityInput | None) -> Identity | None:
    """Return the account that a tool's arguments name instead of a user."""
    return None if given is None else Identity(given.connector, given.account)


def checked_names_of(subjects: Subjects) -> SubjectNames:
    """Return the subjects that a tool's arguments name, where a name that nobody can have must not pass for nobody's.

    Raises:
        InvalidInput: for a name that cannot be one.
    """
    names = names_of(subjects)
    check_names(names)
    return names


def uuid_of(text: str, thing: str) -> UUID:
    """Return the id that a text stands for.

    Raises:
        MalformedId: for anything but the usual spelling of a UUID: there is no such thing.
    """
    try:
        found = UUID(text)
    except ValueError:
        found = None
    if found is None or str(found) != text.lower():
        raise MalformedId(f"there is no such {thing}: ids are UUIDs, as the tools give them")
    return found


def memory_fields(memory: Memory) -> dict[str, Any]:
    """Return the fields that a memory has in every answer."""
    return {
        "id": str(memory.id),
        "memory": memory.text,
        "user_id": memory.subjects.user_id,
        "agent_id": memory.subjects.agent_id,
        "app_id": memory.subjects.app_id,
        "run_id": memory.subjects.run_id,
        "metadata": dict(memory.metadata),
        "categories": list(memory.categories),
        "created_at": memory.created_at,
        "updated_at": memory.updated_at,
        "expiration_date": memory.expires_on,
    }


def memory_output(memory: Memory) -> MemoryOutput:
    """Return a memory as it goes over the wire."""
    return MemoryOutput(**memory_fields(memory))


def hit_output(hit: Hit) -> HitOutput:
    """Return a hit as it goes over the wire."""
    return HitOutput(**memory_fields(hit.memory), score=round(hit.score, 6))


def change_outputs(results: Sequence[EventResult]) -> list[ChangeOutput]:
    """Return what an event did."""
    return [ChangeOutput(id=str(one.memory_id), event=one.change.value, memory=one.text) for one in results]


def entity_output(entity: Entity) -> EntityOutput:
    """Return a user, agent, app or run as it goes over the wire."""
    return EntityOutput(
        id=str(entity.id),
        type=entity.kind.value,
        name=entity.name,
        total_memories=entity.memories,
        created_at=entity.created_at,
        updated_at=entity.updated_at,
    )


def event_output(event: Event) -> EventOutput:
    """Return an event as it goes over the wire."""
    error = ": ".join(part for part in (event.code, event.reason) if part)
    return EventOutput(
        id=str(event.id),
        event_type=event.kind,
        status=event.status.value,
        results=change_outputs(event.results),
        error=error or None,
        created_at=event.created_at,
        updated_at=event.updated_at,
        started_at=event.started_at,
        completed_at=event.completed_at,
    )


def context_output(context: Context, *, max_tokens: int) -> ContextOutput:
    """Return a composed context as it goes over the wire."""
    return ContextOutput(
        context=context.text,
        snippets=[
            SnippetOutput(
                id=str(one.memory.id),
                text=one.text,
                score=round(one.score, 6),
                connector=source(one.memory, "connector"),
                channel=source(one.memory, "channel"),
                created_at=one.memory.created_at,
                updated_at=one.memory.updated_at,
                tokens=one.tokens,
                truncated=one.cut,
            )
            for one in context.snippets
        ],
        tokens=context.tokens,
        max_tokens=max_tokens,
        duplicates=context.duplicates,
        left_out=context.left_out,
    )


def page_fields(page: Page[T]) -> dict[str, Any]:
    """Return the fields that every page has beside its results."""
    return {
        "count": page.total,
        "page": page.number,
        "page_size": page.size,
        "has_more": page.number * page.size < page.total,
    }
