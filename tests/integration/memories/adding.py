"""Adding verbatim memories, and the texts that a search finds."""

from __future__ import annotations

from service.filters.parse import parse_filter
from service.memories.actions import Query
from service.records import Event, Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services


def add(
    services: Services, caller: Caller, *texts: str, user: str = "alice", key: str | None = None, **more: object
) -> Event:
    """Add verbatim messages for a user."""
    subjects = more.pop("subjects", SubjectNames(user_id=user))
    messages = [Message("user", text) for text in texts]
    new = NewMemories(messages=messages, subjects=subjects, infer=False, **more)  # type: ignore[arg-type]
    return services.adds.add(caller, caller.scope, new, idempotency_key=key)


def found(services: Services, caller: Caller, text: str, filters: object = None, limit: int = 10) -> list[str]:
    """Search and return the texts, the best first."""
    query = Query(text, parse_filter(filters), limit=limit)
    return [hit.memory.text for hit in services.memories.search(caller, caller.scope, query)]
