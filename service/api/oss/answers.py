"""From records to the open-source server's wire, pure: what Mem0's own `Memory` returns, key by key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from service.memories.actions import Query
from service.memories.searching import USUAL_THRESHOLD
from service.records import Entity, Event, EventResult, HistoryEntry, Hit, Memory

_VERBATIM: Final = "infer: no LLM is configured, so the messages are stored as they stand (set llm.provider)"


def add_out(event: Event, warnings: Sequence[str], *, verbatim: bool) -> dict[str, Any]:
    """Return the answer to an add whose event is final, or still under way after the wait."""
    told = list(warnings)
    if not verbatim and event.notes.get("stored") == "verbatim":
        verbatim = True
        told.append(_VERBATIM)
    answer: dict[str, Any] = {"results": [_result_out(result, verbatim=verbatim) for result in event.results]}
    if not event.status.is_final:
        answer |= {"status": event.status.value, "event_id": str(event.id)}
        told.append(f"the extraction goes on: GET /v1/event/{event.id}/ tells its end")
    if told:
        answer["warnings"] = told
    return answer


def memory_out(memory: Memory) -> dict[str, Any]:
    """Return one memory as a get answers it."""
    return _item(memory) | {"score": None}


def listed_out(memory: Memory) -> dict[str, Any]:
    """Return a memory as a list of some subjects' memories has it."""
    return _item(memory)


def raw_out(memory: Memory) -> dict[str, Any]:
    """Return a memory as a list of everything has it."""
    whole = _item(memory)
    names = ("user_id", "agent_id", "run_id", "expiration_date")
    return whole | {name: whole.get(name) for name in names} | {"metadata": dict(memory.metadata)}


def hit_out(hit: Hit, query: Query, *, explain: bool) -> dict[str, Any]:
    """Return a memory that was found."""
    found = _item(hit.memory) | {"score": hit.score}
    if explain:
        signals = hit.signals
        found["score_details"] = {
            "semantic_score": signals.semantic,
            "bm25_score": signals.keyword,
            "entity_boost": 0.0,
            "raw_score": signals.fused,
            "max_possible_score": 1.0,
            "final_score": hit.score,
            "threshold": USUAL_THRESHOLD if query.threshold is None else query.threshold,
        }
    return found


def history_out(entry: HistoryEntry) -> dict[str, Any]:
    """Return one step of a memory's history."""
    return {
        "id": str(entry.id),
        "memory_id": str(entry.memory_id),
        "old_memory": entry.old_text,
        "new_memory": entry.new_text,
        "event": entry.change.value,
        "created_at": entry.created_at.isoformat(),
        "updated_at": entry.updated_at.isoformat(),
        "is_deleted": entry.change.value == "DELETE",
        "actor_id": entry.actor,
        "role": entry.role,
    }


def entities_out(entities: Sequence[Entity]) -> list[dict[str, Any]]:
    """Return the subjects that have memories, by kind and name."""
    known = sorted((one for one in entities if one.memories), key=lambda one: (one.kind.value, one.name))
    return [
        {
            "id": one.name,
            "type": one.kind.value,
            "total_memories": one.memories,
            "created_at": one.created_at.isoformat(),
            "updated_at": one.updated_at.isoformat(),
        }
        for one in known
    ]


def _item(memory: Memory) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": str(memory.id),
        "memory": memory.text,
        "hash": hashlib.md5(memory.text.encode(), usedforsecurity=False).hexdigest(),
        "metadata": dict(memory.metadata) or None,
        "created_at": memory.created_at.isoformat(),
        "updated_at": memory.updated_at.isoformat(),
    }
    # Of an extracted memory the role tells whom the fact is about, not who said it.
    role = "attributed_to" if memory.inferred else "role"
    more: dict[str, Any] = {f"{kind.value}_id": name for kind, name in memory.subjects.items()}
    more |= {"actor_id": memory.actor, role: memory.role, "expiration_date": _day(memory.expires_on)}
    return item | {name: value for name, value in more.items() if value is not None}


def _result_out(result: EventResult, *, verbatim: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"id": str(result.memory_id), "memory": result.text, "event": result.change.value}
    return told | {"actor_id": result.actor, "role": result.role} if verbatim else told


def _day(day: date | None) -> str | None:
    return day.isoformat() if day else None
