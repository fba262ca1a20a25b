"""From wire to records, pure: ids, messages, dates and filters as they came become what the actions take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time
from typing import Any, Final

from service import clock
from service.api.platform.schemas import AddIn, ListFields, MessageIn, SearchFields, Subjects, UpdateIn
from service.api.reading import SUBJECTS, expiry_of, moment_of
from service.api.reading import uuid_in_path as uuid_in_path
from service.errors import InvalidInput
from service.filters.ast import Node
from service.filters.build import and_, subjects_filter
from service.filters.parse import parse_filter
from service.filters.times import read_time
from service.memories.actions import Query
from service.memories.edits import UNSET, Edit
from service.memories.events import Which
from service.memories.limits import check_characters, check_names
from service.records import EventStatus, Identity, Message, NewMemories, SubjectNames

DEFAULT_TOP_K: Final = 10
#: Parts that a warning names.
_TOLD_PARTS: Final = 5
#: Fields of an add by which a caller would write policy; they are ignored and the answer says so.
_IGNORED: Final = (
    "prompt",
    "includes",
    "excludes",
    "custom_instructions",
    "agent_custom_instructions",
    "custom_categories",
    "structured_data_schema",
)
#: Newer providers say "developer" where others say "system": instructions, of which nothing is remembered. Mem0's group
#: chats have agents beside the assistant.
_ROLES: Final = {"developer": "system", "agent": "assistant"}


def new_memories(body: AddIn) -> NewMemories:
    """Return what an add asks to remember.

    Raises:
        InvalidInput: naming the field that cannot be understood.
    """
    return NewMemories(
        messages=[_message(message, f"messages[{number}]") for number, message in enumerate(body.messages)],
        subjects=_subjects_of_add(body),
        metadata=body.metadata or {},
        infer=True if body.infer is None else body.infer,
        categories=tuple(body.categories or ()),
        occurred_at=None if body.timestamp is None else moment_of(body.timestamp, "timestamp"),
        expires_on=None if body.expiration_date is None else expiry_of(body.expiration_date),
    )


def identity_of(body: AddIn | SearchFields | ListFields) -> Identity | None:
    """Return the account that a body names instead of a user."""
    return None if body.identity is None else Identity(body.identity.connector, body.identity.account)


def ignored_fields(body: AddIn) -> list[str]:
    """Return a warning for each field that was sent and is ignored, and one for the parts that are left out."""
    given = [name for name in _IGNORED if getattr(body, name) is not None]
    told = [f"{name}: ignored; what is extracted is set in the project's settings, not by callers" for name in given]
    left_out = [
        f"messages[{number}].content[{place}]"
        for number, message in enumerate(body.messages)
        if not isinstance(message.content, str)
        for place, part in enumerate(message.content)
        if not part.is_said and not part.is_of_tools
    ]
    if left_out:
        more = f" and {len(left_out) - _TOLD_PARTS} more" if len(left_out) > _TOLD_PARTS else ""
        told.append(f"{', '.join(left_out[:_TOLD_PARTS])}{more}: left out; only text can be remembered")
    return told


def names_of(subjects: Subjects) -> SubjectNames:
    """Return the ids that stand at the top level of a body."""
    return SubjectNames(**{name: getattr(subjects, name) for name in SUBJECTS})


def names_to_delete(names: SubjectNames) -> SubjectNames:
    """Return the ids of a deletion, checked: an id that cannot be one must not pass for "nobody's"."""
    check_names(names)
    return names


def query_of(body: SearchFields, names: SubjectNames | None = None) -> Query:
    """Return the search that a body asks for."""
    check_characters(body.query, "query")
    where = _where(body, names)
    limit = body.top_k if body.top_k is not None else body.limit
    reference = None
    if body.reference_date is not None:
        reference = moment_of(body.reference_date, "reference_date").date()
    return Query(
        text=body.query,
        where=where,
        limit=DEFAULT_TOP_K if limit is None else limit,
        threshold=body.threshold,
        on=None if body.show_expired else reference or clock.today(),
        reference=reference,
        latest=bool(body.latest_only),
    )


def list_filter(body: ListFields, names: SubjectNames | None = None) -> Node:
    """Return the filter that a list asks for."""
    more: dict[str, Any] = {}
    created = {"gte": body.start_date, "lte": body.end_date}
    if given := {operator: value for operator, value in created.items() if value is not None}:
        more["created_at"] = given
    if body.keywords is not None:
        more["keywords"] = body.keywords
    return and_(_where(body, names), parse_filter(more, where="body"))


def events_wanted(
    statuses: Sequence[EventStatus] | None, kinds: Sequence[str] | None, start: str | None, end: str | None
) -> Which:
    """Return which events a list asks for. A day as its end means to the end of that day."""
    for kind in kinds or ():
        check_characters(kind, "event_type")
    since = None if start is None else moment_of(start, "start_date")
    until = None if end is None else moment_of(end, "end_date")
    if until is not None and not isinstance(read_time(str(end)), datetime):
        until = datetime.combine(until.date(), time.max, until.tzinfo)
    return Which(statuses or (), kinds or (), since, until)


def edit_of(body: UpdateIn) -> Edit:
    """Return what an update changes."""
    expires: Any = UNSET
    if "expiration_date" in body.model_fields_set:
        expires = None if body.expiration_date is None else expiry_of(body.expiration_date)
    text = body.data if body.text is None else body.text
    return Edit(
        text=UNSET if text is None else text,
        metadata=UNSET if body.metadata is None else body.metadata,
        expires_on=expires,
        created_at=UNSET if body.timestamp is None else moment_of(body.timestamp, "timestamp"),
    )


def _where(body: SearchFields | ListFields, names: SubjectNames | None) -> Node:
    more: dict[str, Any] = {}
    if body.categories:
        more["categories"] = body.categories
    if body.metadata:
        more["metadata"] = body.metadata
    parts = [parse_filter(body.filters), parse_filter(more, where="body")]
    if names:
        check_names(names)
        parts.append(subjects_filter(names))
    return and_(*parts)


def _message(message: MessageIn, where: str) -> Message:
    content = message.content
    if not isinstance(content, str):
        if content and not message.is_of_tools and not any(part.is_said for part in content):
            raise InvalidInput(f"{where}.content[0]: only text can be remembered, and there is none beside it")
        content = "\n".join(part.text or "" for part in content if part.is_said)
    role = _ROLES.get(message.role, message.role)
    if message.is_of_tools and (not content or content.isspace()):
        # Nothing was said. It goes the way of instructions, and keeps its place, by which errors name the others.
        role = "system"
    return Message(role=role, content=content, name=message.name)


def _subjects_of_add(body: AddIn) -> SubjectNames:
    found = {name: value for name in SUBJECTS if (value := getattr(body, name)) is not None}
    for part in _flat(body.filters):
        for name, value in part.items():
            if value is None:
                continue
            if name not in SUBJECTS or not isinstance(value, str):
                raise InvalidInput(f"filters: an add takes only {', '.join(SUBJECTS)} here, each a string")
            if found.setdefault(name, value) != value:
                raise InvalidInput(f"{name}: stands twice, with two values")
    return SubjectNames(**found)


def _flat(filters: Any) -> list[Mapping[str, Any]]:
    """Return the objects of an add's filters: one, or those of a list or of the `AND` that clients wrap them in."""
    if not filters:
        return []
    if isinstance(filters, dict) and set(filters) == {"AND"} and isinstance(filters["AND"], list):
        filters = filters["AND"]
    parts = filters if isinstance(filters, list) else [filters]
    if not all(isinstance(part, dict) for part in parts):
        raise InvalidInput("filters: must hold objects")
    return parts
