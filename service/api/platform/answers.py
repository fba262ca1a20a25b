"""From records to wire, pure: the exact shapes that the official clients read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from datetime import datetime
from typing import Any, Final

from fastapi import Request

from service.api.links import link
from service.memories.reviews import Review
from service.records import (
    Change,
    Entity,
    Event,
    EventResult,
    EventStatus,
    HistoryEntry,
    Hit,
    Memory,
    Page,
    Provenance,
    SubjectNames,
)
from service.scope import TenantId

_ADDED: Final = {
    EventStatus.PENDING: "Accepted; ask for the event to see what was extracted",
    EventStatus.RUNNING: "Accepted; ask for the event to see what was extracted",
    EventStatus.SUCCEEDED: "Memories stored",
    EventStatus.FAILED: "Nothing was stored",
    EventStatus.CANCELLED: "Nothing was stored",
}
_WAITING: Final = "Waiting for a reviewer; nothing is stored until it is approved"
_VERBATIM: Final = "Messages stored verbatim: no LLM is configured, so nothing was extracted (set llm.provider)"


def memories_out(memories: Sequence[Memory], fields: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return memories; with `fields` only their ids and those."""
    wanted = None if fields is None else frozenset(fields)
    return [memory_out(memory, wanted) for memory in memories]


def memory_out(memory: Memory, fields: Set[str] | None = None) -> dict[str, Any]:
    """Return a memory; with `fields` only its id and those."""
    whole = {
        "id": str(memory.id),
        "memory": memory.text,
        **_names(memory.subjects),
        "hash": hashlib.md5(memory.text.encode(), usedforsecurity=False).hexdigest(),
        "metadata": dict(memory.metadata),
        "categories": list(memory.categories),
        "expiration_date": memory.expires_on.isoformat() if memory.expires_on else None,
        "provenance": provenance_out(memory.provenance),
        "created_at": memory.created_at.isoformat(),
        "updated_at": memory.updated_at.isoformat(),
    }
    if fields is None:
        return whole
    return {name: value for name, value in whole.items() if name == "id" or name in fields}


def provenance_out(provenance: Provenance) -> dict[str, Any]:
    """Return where a memory comes from; `key_id` is the id of an access token's subject where that asked."""
    return {
        "connector": provenance.connector,
        "key_id": str(provenance.principal_id) if provenance.principal_id else None,
        "event_id": str(provenance.event_id) if provenance.event_id else None,
        "extracted": provenance.extracted,
    }


def hits_out(hits: Sequence[Hit], fields: Sequence[str] | None, *, explain: bool) -> list[dict[str, Any]]:
    """Return hits; with `fields` only the ids and those of their memories, and the scores."""
    wanted = None if fields is None else frozenset(fields)
    return [_hit_out(hit, wanted, explain=explain) for hit in hits]


def _hit_out(hit: Hit, fields: Set[str] | None, *, explain: bool) -> dict[str, Any]:
    """Return a hit: its memory, the score, and where the score comes from when that was asked for."""
    found = memory_out(hit.memory, fields) | {"score": hit.score}
    if explain:
        signals = hit.signals
        found["score_details"] = {
            "semantic": signals.semantic,
            "keyword": signals.keyword,
            "bm25": signals.bm25,
            "fused": signals.fused,
            "neighbours": signals.neighbours,
            "time": signals.time,
            "rank": signals.rank,
        }
    return found


def review_out(review: Review) -> dict[str, Any]:
    """Return a memory that waits for a reviewer."""
    waiting = memory_out(review.memory) | {"quarantined_at": review.since.isoformat()}
    return waiting if review.score is None else waiting | {"score": round(review.score, 6)}


def history_out(entry: HistoryEntry) -> dict[str, Any]:
    """Return one step of a memory's history."""
    return {
        "id": str(entry.id),
        "memory_id": str(entry.memory_id),
        "input": [],
        "old_memory": entry.old_text,
        "new_memory": entry.new_text,
        "user_id": entry.subjects.user_id,
        "event": entry.change.value,
        "metadata": dict(entry.metadata),
        "created_at": entry.created_at.isoformat(),
        "updated_at": entry.updated_at.isoformat(),
    }


def add_out(event: Event, warnings: Sequence[str]) -> dict[str, Any]:
    """Return the answer to an add."""
    message = _VERBATIM if event.notes.get("stored") == "verbatim" else _ADDED[event.status]
    if any(result.change is Change.QUARANTINED for result in event.results):
        message = _WAITING
    answer: dict[str, Any] = {"message": message, "status": event.status.value, "event_id": str(event.id)}
    if event.status.is_final:
        answer["results"] = [result_out(result) for result in event.results]
    if warnings:
        answer["warnings"] = list(warnings)
    return answer


def result_out(result: EventResult) -> dict[str, Any]:
    """Return what an event did to one memory, its text where each of the two dialects reads it."""
    return {
        "id": str(result.memory_id),
        "event": result.change.value,
        "memory": result.text,
        "data": {"memory": result.text},
        **_names(result.subjects),
        "actor_id": result.actor,
        "role": result.role,
    }


def event_out(event: Event) -> dict[str, Any]:
    """Return an event."""
    latency = None
    if event.started_at is not None and event.completed_at is not None:
        latency = round((event.completed_at - event.started_at).total_seconds() * 1000, 3)
    return {
        "id": str(event.id),
        "event_type": event.kind,
        "status": event.status.value,
        "payload": None,
        "metadata": dict(event.notes),
        "results": [result_out(result) for result in event.results],
        "error": event.reason,
        "code": event.code,
        "attempts": event.attempts,
        "created_at": event.created_at.isoformat(),
        "updated_at": event.updated_at.isoformat(),
        "started_at": _time(event.started_at),
        "completed_at": _time(event.completed_at),
        "latency": latency,
    }


def entity_out(entity: Entity, tenant_id: TenantId) -> dict[str, Any]:
    """Return an entity. Its id is its name: clients of every generation delete by one of the two."""
    return {
        "id": entity.name,
        "name": entity.name,
        "type": entity.kind.value,
        "total_memories": entity.memories,
        "owner": str(tenant_id),
        "metadata": {},
        "created_at": entity.created_at.isoformat(),
        "updated_at": entity.updated_at.isoformat(),
    }


def page_out(request: Request, page: Page[Any], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one page with the URLs of its neighbours, or null where there is none."""
    last = -(-page.total // page.size)

    def url(number: int) -> str:
        return link(request, page=number, page_size=page.size)

    return {
        "count": page.total,
        "next": url(page.number + 1) if page.number < last else None,
        "previous": url(min(page.number - 1, last)) if page.number > 1 and last else None,
        "results": list(results),
    }


def _names(subjects: SubjectNames) -> dict[str, str | None]:
    return {
        "user_id": subjects.user_id,
        "agent_id": subjects.agent_id,
        "app_id": subjects.app_id,
        "run_id": subjects.run_id,
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
