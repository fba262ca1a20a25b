"""Mem0's own memories, pure: a payload of its vector store or an item of its API becomes a memory to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from service.filters.times import read_time, read_unix
from service.portability.records import IncomingHistory, IncomingMemory, Placed, Unreadable
from service.records import Change, SubjectNames

_IDS: Final = ("user_id", "agent_id", "app_id", "run_id")
#: Keys of a payload that are facts of the record or are computed anew; the others are the caller's metadata.
_OWN: Final = frozenset(_IDS) | {
    "data",
    "memory",
    "hash",
    "text_lemmatized",
    "attributed_to",
    "created_at",
    "updated_at",
    "expiration_date",
    "actor_id",
    "role",
    "categories",
    "id",
}


def uuid_of(raw: Any) -> UUID:
    """Return an id as it is, or, of one that is no UUID, always the same UUID."""
    try:
        return UUID(str(raw))
    except ValueError:
        return uuid5(NAMESPACE_URL, f"mem0:{raw}")


def of_payload(
    where: str, raw_id: Any, payload: Mapping[str, Any], history: Sequence[IncomingHistory], now: datetime
) -> Placed:
    """Return the memory of a point of Mem0's vector store."""
    metadata = {name: value for name, value in payload.items() if name not in _OWN}
    return _placed(where, raw_id, payload, payload.get("data"), metadata, history, now)


def of_item(where: str, item: Any, now: datetime) -> Placed:
    """Return the memory of an item as the platform's API and its exports show it."""
    if not isinstance(item, dict):
        raise Unreadable(where, "is not an object")
    text = next((item[name] for name in ("memory", "text", "content", "data") if item.get(name)), None)
    metadata = item.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Unreadable(where, "its metadata is not an object")
    memory_id = item.get("id") or item.get("memory_id")
    if memory_id is None:
        # The same text of the same owner gives the same id, so that the import can be run again.
        memory_id = "\x00".join(str(item.get(name)) for name in (*_IDS, "created_at")) + str(text)
    known = uuid_of(memory_id)
    steps = item.get("history") or []
    if not isinstance(steps, list):
        raise Unreadable(where, "its history is no list")
    history = [step_of(f"{where}.history[{number}]", step, known, now) for number, step in enumerate(steps)]
    return _placed(where, memory_id, item, text, metadata, history, now)


def step_of(where: str, row: Mapping[str, Any], memory_id: UUID, now: datetime) -> IncomingHistory:
    """Return a step of Mem0's history."""
    try:
        change = Change(str(row["event"]).upper())
        old, new = row.get("old_memory"), row.get("new_memory")
        if not all(text is None or isinstance(text, str) for text in (old, new)):
            raise TypeError
        created = moment_of(row.get("created_at")) or moment_of(row.get("updated_at")) or now
        # Of what was deleted no text is kept.
        gone = change is Change.DELETE
        return IncomingHistory(
            id=uuid_of(row["id"]),
            memory_id=memory_id,
            change=change,
            content=None if gone else {"old": old, "new": new, "metadata": {}},
            created_at=created,
            updated_at=moment_of(row.get("updated_at")) or created,
        )
    except (KeyError, ValueError, TypeError):
        raise Unreadable(where, "is no step of a history") from None


def moment_of(value: Any) -> datetime | None:
    """Return a time in any of the forms that Mem0 writes; one without a zone is UTC."""
    if value is None or value == "":
        return None
    read = read_time(value) if isinstance(value, str) else read_unix(value)
    if read is None:
        raise ValueError("no time")
    if not isinstance(read, datetime):
        return datetime(read.year, read.month, read.day, tzinfo=UTC)
    return read


def _placed(
    where: str,
    raw_id: Any,
    fields: Mapping[str, Any],
    text: Any,
    metadata: Mapping[str, Any],
    history: Sequence[IncomingHistory],
    now: datetime,
) -> Placed:
    try:
        created = moment_of(fields.get("created_at")) or min((step.created_at for step in history), default=now)
        changed = (step.updated_at for step in history if step.change is Change.UPDATE)
        updated = moment_of(fields.get("updated_at")) or max(changed, default=created)
        expires = moment_of(fields.get("expiration_date"))
    except (ValueError, TypeError):
        raise Unreadable(where, "has a time that cannot be understood") from None
    if not isinstance(text, str):
        raise Unreadable(where, "has no text")
    categories = fields.get("categories") or []
    if not isinstance(categories, str | list):
        raise Unreadable(where, "its categories are no list")
    return Placed(
        where,
        IncomingMemory(
            id=uuid_of(raw_id),
            text=text,
            subjects=SubjectNames(**{name: _name(fields.get(name)) for name in _IDS}),
            created_at=created,
            updated_at=updated,
            metadata=dict(metadata),
            categories=(categories,) if isinstance(categories, str) else tuple(str(one) for one in categories),
            actor=_name(fields.get("actor_id")),
            role=_name(fields.get("role")),
            inferred=fields.get("attributed_to") is not None,
            expires_on=_day(expires),
            version=max(1, len(history)),
            history=tuple(history),
        ),
    )


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def _name(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
