"""The lines of an export, pure: one JSON object each, of a subject, a memory or a step of history, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

import orjson

from service.errors import TooLarge
from service.filters.times import in_utc
from service.portability.records import Incoming, IncomingHistory, IncomingMemory, IncomingSubject, Placed, Unreadable
from service.records import Change, SubjectNames
from service.scope import SubjectKind
from service.storage.leaving import LeavingHistory, LeavingMemory
from service.storage.superseding import KINDS, Link
from service.strict_json import refuse_many

FORMAT: Final = "memvault-export-1"
_IDS: Final = ("user_id", "agent_id", "app_id", "run_id")
#: What a memory's line says besides its content.
_FRAME: Final = frozenset(
    {"type", "id", "version", "created_at", "updated_at", "ingested_at", "expires_on", "event_id", "principal_id"}
    | {"superseding", "superseded_by"}
) | frozenset(_IDS)
_CONTENT: Final = frozenset({"text", "metadata", "categories", "actor", "role", "inferred", "links", "supersedes"})


@dataclass(frozen=True, slots=True)
class _Edge:
    """The first line of an export, or its last with the number of those before it."""

    is_end: bool
    lines: Any = None


def header(tenant_id: UUID, at: datetime) -> dict[str, Any]:
    """Return the first line of an export."""
    return {"type": "export", "format": FORMAT, "tenant_id": str(tenant_id), "created_at": _told(at)}


def ending(lines: int) -> dict[str, Any]:
    """Return the last line: an export without it was cut off. `lines` counts those before it."""
    return {"type": "end", "lines": lines}


def subject_line(kind: SubjectKind, name: str, subject_id: UUID, created_at: datetime) -> dict[str, Any]:
    """Return the line of a user, agent, app or run."""
    return {
        "type": "subject",
        "id": str(subject_id),
        "kind": kind.value,
        "name": name,
        "created_at": _told(created_at),
    }


def memory_line(memory: LeavingMemory, names: SubjectNames, links: Sequence[Link]) -> dict[str, Any]:
    """Return the line of a memory: what the record says of it, and all of its content.

    A link stands at both of its ends, so that whichever is imported last makes it.
    """
    return {
        **memory.content,
        "type": "memory",
        "id": str(memory.id),
        **_ids(names),
        "version": memory.version,
        "created_at": _told(memory.created_at),
        "updated_at": _told(memory.updated_at),
        "ingested_at": _told(memory.ingested_at),
        "expires_on": None if memory.expires_on is None else memory.expires_on.isoformat(),
        "event_id": None if memory.event_id is None else str(memory.event_id),
        "principal_id": None if memory.principal_id is None else str(memory.principal_id),
        "superseding": [_end(one.older_id, one.kind) for one in links if one.newer_id == memory.id],
        "superseded_by": [_end(one.newer_id, one.kind) for one in links if one.older_id == memory.id],
    }


def history_line(step: LeavingHistory, names: SubjectNames) -> dict[str, Any]:
    """Return the line of a step of history."""
    return {
        "type": "history",
        "id": str(step.id),
        "memory_id": str(step.memory_id),
        **_ids(names),
        "change": step.change,
        "content": step.content,
        "created_at": _told(step.created_at),
        "updated_at": _told(step.updated_at),
    }


def encoded(line: Mapping[str, Any]) -> bytes:
    """Return a line as it is written."""
    return orjson.dumps(line) + b"\n"


def read_lines(lines: Iterable[tuple[str, bytes]]) -> Iterator[Placed]:
    """Read the lines of an export, each with where it stands; the history of a memory comes with the memory.

    Lines alone, without the first of an export, are taken as they come.

    Raises:
        Unreadable: for a line that is none of an export, or one of a later format, and at the end of an export that was
            cut off or lacks lines.
    """
    memory: tuple[str, IncomingMemory] | None = None
    steps: list[IncomingHistory] = []
    for where, found in _whole(lines):
        if isinstance(found, IncomingHistory) and memory is not None and found.memory_id == memory[1].id:
            steps.append(found)
            continue
        if memory is not None:
            yield _with_history(*memory, steps)
            memory, steps = None, []
        if isinstance(found, IncomingMemory):
            memory = where, found
        else:
            yield Placed(where, found)
    if memory is not None:
        yield _with_history(*memory, steps)


def _whole(lines: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Incoming]]:
    """Read lines; behind the first of an export there are as many as its end tells, since it was last gone on with."""
    counted: int | None = None
    last = ""
    for where, line in lines:
        found, last = _read(where, line), where
        if not isinstance(found, _Edge):
            yield where, found
        elif not found.is_end:
            counted = 0
        elif counted in (None, found.lines):
            counted = None
        else:
            raise Unreadable(where, "tells of another number of lines than there are before it: some are missing")
        if counted is not None:
            counted += 1
    if counted is not None:
        raise Unreadable(last, "is the last line, and not the end that an export has: it was cut off")


def _with_history(where: str, memory: IncomingMemory, steps: list[IncomingHistory]) -> Placed:
    fields = {name: getattr(memory, name) for name in IncomingMemory.__slots__}
    return Placed(where, IncomingMemory(**fields | {"history": tuple(steps)}))


def _read(where: str, line: bytes) -> Incoming | _Edge:
    try:
        refuse_many(line, where)
        fields = orjson.loads(line)
    except TooLarge:
        raise Unreadable(where, "has more values than any line of an export") from None
    except ValueError:
        raise Unreadable(where, "is not JSON") from None
    if not isinstance(fields, dict):
        raise Unreadable(where, "is not a JSON object")
    kind = fields.get("type")
    try:
        if kind == "export":
            if fields.get("format") != FORMAT:
                raise Unreadable(where, f"is of another format than {FORMAT}; import it with the release that knows it")
            return _Edge(is_end=False)
        if kind == "end":
            return _Edge(is_end=True, lines=fields.get("lines"))
        if kind == "subject":
            return IncomingSubject(SubjectKind(fields["kind"]), str(fields["name"]), _moment(fields["created_at"]))
        if kind == "memory":
            return _memory(fields)
        if kind == "history":
            return _history(fields)
    except Unreadable:
        raise
    except OverflowError:
        raise Unreadable(where, "has a time that is before the year 1 or after the year 9999 in UTC") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # Of a KeyError the key alone is known to be ours.
        missing = f"lacks {error}" if isinstance(error, KeyError) else "has a field of a wrong kind"
        raise Unreadable(where, missing) from None
    raise Unreadable(where, "has no type of this format: export, subject, memory, history or end")


def _memory(fields: dict[str, Any]) -> IncomingMemory:
    content = {name: value for name, value in fields.items() if name not in _FRAME}
    expires = fields.get("expires_on")
    if not isinstance(content["text"], str) or not isinstance(content.get("metadata", {}), dict):
        raise TypeError
    if not isinstance(content.get("categories") or [], list):
        raise TypeError
    memory_id = UUID(fields["id"])
    return IncomingMemory(
        id=memory_id,
        text=content["text"],
        subjects=_names(fields),
        created_at=_moment(fields["created_at"]),
        updated_at=_moment(fields["updated_at"]),
        metadata=content.get("metadata") or {},
        categories=tuple(str(one) for one in content.get("categories") or ()),
        actor=_text(content.get("actor")),
        role=_text(content.get("role")),
        inferred=bool(content.get("inferred")),
        links=tuple(UUID(one) for one in content.get("links") or ()),
        supersedes=tuple(UUID(one) for one in content.get("supersedes") or ()),
        holding=_holding(memory_id, fields),
        expires_on=None if expires is None else date.fromisoformat(expires),
        version=int(fields.get("version", 1)),
        more={name: value for name, value in content.items() if name not in _CONTENT},
    )


def _history(fields: dict[str, Any]) -> IncomingHistory:
    content = fields.get("content")
    if content is not None:
        # All that a step of the record has: what reads it asks for each.
        content = {
            **content,
            "old": _text(content.get("old")),
            "new": _text(content.get("new")),
            "metadata": _object(content.get("metadata")),
        }
    return IncomingHistory(
        id=UUID(fields["id"]),
        memory_id=UUID(fields["memory_id"]),
        change=Change(fields["change"]),
        content=content,
        created_at=_moment(fields["created_at"]),
        updated_at=_moment(fields["updated_at"]),
        subjects=_names(fields),
    )


def _holding(memory_id: UUID, fields: dict[str, Any]) -> tuple[Link, ...] | None:
    """Return the links that hold; None for a file of a release that did not tell."""
    if "superseding" not in fields and "superseded_by" not in fields:
        return None
    older = [Link(UUID(one["id"]), memory_id, _kind(one)) for one in fields.get("superseding") or ()]
    newer = [Link(memory_id, UUID(one["id"]), _kind(one)) for one in fields.get("superseded_by") or ()]
    return (*older, *newer)


def _kind(end: dict[str, Any]) -> str:
    if end["kind"] not in KINDS:
        raise ValueError
    return str(end["kind"])


def _end(memory_id: UUID, kind: str) -> dict[str, str]:
    return {"id": str(memory_id), "kind": kind}


def _names(fields: dict[str, Any]) -> SubjectNames:
    return SubjectNames(**{name: _text(fields.get(name)) for name in _IDS})


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value


def _object(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise TypeError
    return value or {}


def _ids(names: SubjectNames) -> dict[str, str | None]:
    return {name: getattr(names, name) for name in _IDS}


def _moment(value: Any) -> datetime:
    # In UTC at once: what the calendar has in another zone alone could be stored, and never be read again.
    return in_utc(datetime.fromisoformat(value))


def _told(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
