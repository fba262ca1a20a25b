"""Between the wire and the records of the audit trail, pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar
from uuid import UUID

from service.api.admin.audit_schemas import MatchIn
from service.audit.entries import document
from service.audit.events import Activity, AuditEvent, Outcome
from service.audit.fingerprints import Kind
from service.audit.knowledge import Known
from service.audit.matching import Matches, Where
from service.audit.reading import AuditPage
from service.audit.selection import Selection
from service.errors import InvalidInput
from service.filters.times import read_time
from service.memories.limits import check_characters, check_names
from service.records import SubjectNames

_TEXT_CHARS: Final = 255
_KINDS: Final = {Kind.QUERY: "query", Kind.TEXT: "text"}
E = TypeVar("E", bound=StrEnum)


def selection_of(
    *,
    since: str | None,
    until: str | None,
    principal_id: str | None,
    names: SubjectNames,
    subject_id: str | None,
    events: Sequence[str] | None,
    activity: str | None,
    memory_id: str | None,
    outcomes: Sequence[str] | None,
    request_id: str | None,
    connector: str | None,
) -> Selection:
    """Return the filter that a query string asks for.

    Raises:
        InvalidInput: naming the parameter that cannot be understood.
    """
    check_names(names)
    return Selection(
        since=moment_of(since, "from"),
        until=moment_of(until, "to"),
        principal_id=id_of(principal_id, "principal_id"),
        names=names,
        subjects=() if subject_id is None else (_uuid(subject_id, "subject_id"),),
        events=frozenset(_one_of(AuditEvent, value, "event") for value in events or ()),
        activity=None if activity is None else _one_of(Activity, activity, "activity"),
        memory_id=id_of(memory_id, "memory_id"),
        outcomes=frozenset(_one_of(Outcome, value, "outcome") for value in outcomes or ()),
        request_id=text_of(request_id, "request_id"),
        connector=text_of(connector, "connector"),
    )


def moment_of(value: str | None, where: str) -> datetime | None:
    """Return a moment; a day is its beginning in UTC.

    Raises:
        InvalidInput: for what is no ISO 8601 moment.
    """
    if value is None:
        return None
    read = read_time(value)
    if read is None:
        raise InvalidInput(f"{where}: must be an ISO 8601 moment or day, such as 2030-01-31T00:00:00Z")
    return read if isinstance(read, datetime) else datetime(read.year, read.month, read.day, tzinfo=UTC)


def id_of(value: str | None, where: str) -> UUID | None:
    """Return an id, None when there is none.

    Raises:
        InvalidInput: for what is no UUID.
    """
    return None if value is None else _uuid(value, where)


def text_of(value: str | None, where: str) -> str | None:
    """Return a text that a row may hold, None when there is none.

    Raises:
        InvalidInput: for one that is empty, too long, or holds characters that cannot be stored.
    """
    if value is not None:
        check_characters(value, where)
        if not 1 <= len(value) <= _TEXT_CHARS:
            raise InvalidInput(f"{where}: must have 1 to {_TEXT_CHARS} characters")
    return value


def where_of(body: MatchIn) -> Where:
    """Return against what a value is to be held.

    Raises:
        InvalidInput: unless exactly one is named.
    """
    check_characters(body.value, "value")
    names = SubjectNames(user_id=body.user_id, agent_id=body.agent_id, app_id=body.app_id, run_id=body.run_id)
    check_names(names)
    where = Where(
        row_id=id_of(body.audit_id, "audit_id"),
        memory_id=id_of(body.memory_id, "memory_id"),
        name=names.items()[0] if names else None,
        subject_id=id_of(body.subject_id, "subject_id"),
    )
    given = [one for one in (where.row_id, where.memory_id, where.subject_id) if one is not None]
    if len(given) + len(names.items()) != 1:
        raise InvalidInput("name one of audit_id, memory_id, user_id, agent_id, app_id, run_id and subject_id")
    return where


def audit_page_out(page: AuditPage, next_url: str | None) -> dict[str, Any]:
    """Return one page of the trail."""
    subjects = None
    if page.names is not None:
        subjects = {str(one): {"type": kind.value, "name": name} for one, (kind, name) in page.names.items()}
    return {
        "results": [document(entry) for entry in page.entries],
        "next": next_url,
        "next_cursor": page.next_cursor,
        "subjects": subjects,
    }


def known_out(known: Known) -> dict[str, Any]:
    """Return what was known."""
    shown = set(known.shown)
    return {
        "at": known.at.isoformat(),
        "subject_ids": [str(one) for one in known.subject_ids],
        "total": known.total,
        "memories": [
            {
                "memory_id": str(one.memory_id),
                "added_at": one.added_at.isoformat(),
                "changed_at": one.changed_at.isoformat() if one.changed_at else None,
                "expires_on": one.expires_on.isoformat() if one.expires_on else None,
                "shown": one.memory_id in shown,
            }
            for one in known.memories
        ],
        "shown": [str(one) for one in known.shown],
        "trail_from": None if known.trail_from is None else known.trail_from.isoformat(),
    }


def matches_out(found: Matches) -> dict[str, Any]:
    """Return where a value stands."""
    return {
        "matches": [
            {
                "audit_id": str(one.row_id),
                "at": one.at.isoformat(),
                "event": one.event,
                "kind": _KINDS[one.kind],
                "memory_id": None if one.memory_id is None else str(one.memory_id),
            }
            for one in found.matches
        ],
        "checked": found.checked,
        "unmatchable": found.unmatchable,
    }


def _uuid(value: str, where: str) -> UUID:
    try:
        found = UUID(value)
    except ValueError:
        found = None
    if found is None or str(found) != value.lower():
        raise InvalidInput(f"{where}: must be an id, such as 01890a5d-ac96-774b-bcce-b302099a8057")
    return found


def _one_of(kind: type[E], value: str, where: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise InvalidInput(f"{where}: must be one of {', '.join(kind)}") from None
