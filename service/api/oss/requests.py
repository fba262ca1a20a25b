"""From the open-source server's wire to records, pure: adds, edits, and filters in Mem0's open-source language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service import clock
from service.api.oss.schemas import OssAddIn, OssSearchIn, OssSubjects, OssUpdateIn
from service.api.reading import SUBJECTS, expiry_of
from service.errors import InvalidInput, ScopeRequired
from service.filters.ast import Node
from service.filters.build import and_, subjects_filter
from service.filters.parse import parse_filter
from service.memories.actions import Query
from service.memories.edits import UNSET, Edit
from service.memories.limits import check_characters, check_names
from service.records import Message, NewMemories, SubjectNames

DEFAULT_TOP_K: Final = 20
_PROCEDURAL: Final = "procedural_memory"
#: Keys that are fields of a memory here; every other key of a filter is one of the metadata.
_FIELDS: Final = frozenset((*SUBJECTS, "actor_id", "created_at", "updated_at", "expiration_date", "categories"))
_LOGIC: Final = ("AND", "OR", "NOT")
#: Deeper than any filter may be, so that the parser is the one that says so.
_DEEPEST: Final = 50


def names_of(subjects: OssSubjects) -> SubjectNames:
    """Return the ids that a body or a query names, checked.

    Raises:
        InvalidInput: for an id that cannot be one.
    """
    names = _named(subjects)
    check_names(names)
    return names


def _named(subjects: OssSubjects) -> SubjectNames:
    return SubjectNames(**{name: getattr(subjects, name) for name in SUBJECTS})


def new_memories(body: OssAddIn) -> NewMemories:
    """Return what an add asks to remember.

    Raises:
        InvalidInput: naming the field that cannot be understood.
    """
    if body.memory_type not in (None, _PROCEDURAL):
        raise InvalidInput(f"memory_type: must be {_PROCEDURAL} or be left out")
    # Without an agent Mem0 takes no notice of the type.
    procedural = body.memory_type == _PROCEDURAL and body.agent_id is not None
    return NewMemories(
        messages=[Message(role=one.role, content=one.content, name=one.name) for one in body.messages],
        subjects=_named(body),
        metadata=body.metadata or {},
        infer=procedural or body.infer is None or body.infer,
        expires_on=None if body.expiration_date is None else expiry_of(body.expiration_date),
        procedural=procedural,
    )


def ignored_fields(body: OssAddIn) -> list[str]:
    """Return a warning for each field that was sent and is ignored."""
    if body.prompt is None:
        return []
    return ["prompt: ignored; what is extracted is set by the installation, not by callers"]


def edit_of(body: OssUpdateIn) -> Edit:
    """Return what an update changes. Metadata is added to what is there, as Mem0 does."""
    expires: Any = UNSET
    if "expiration_date" in body.model_fields_set:
        expires = None if body.expiration_date is None else expiry_of(body.expiration_date)
    return Edit(
        text=UNSET if body.text is None else body.text,
        metadata=UNSET if body.metadata is None else body.metadata,
        expires_on=expires,
        merge=body.metadata is not None,
    )


def query_of(body: OssSearchIn) -> Query:
    """Return the search that a body asks for.

    Raises:
        ScopeRequired: when it names no user, agent, app or run.
        InvalidInput: for a filter that cannot be understood.
    """
    check_characters(body.query, "query")
    filters = body.filters or {}
    names = names_of(body)
    if not names and not _names_one(filters):
        raise ScopeRequired("filters: name a user_id, an agent_id or a run_id; other conditions stand beside it")
    return Query(
        text=body.query,
        where=and_(parsed(filters), subjects_filter(names)),
        limit=DEFAULT_TOP_K if body.top_k is None else body.top_k,
        threshold=body.threshold,
        on=None if body.show_expired else clock.today(),
    )


def parsed(filters: Mapping[str, Any]) -> Node:
    """Return a filter of Mem0's open-source language, in which a key that is no field is one of the metadata.

    Raises:
        InvalidInput: naming what cannot be understood.
    """
    return parse_filter(_translated(filters, "filters", 0))


def _translated(value: Any, where: str, depth: int) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where}: must be an object")
    if depth > _DEEPEST:
        raise InvalidInput(f"{where}: is nested too deep")
    parts: list[dict[str, Any]] = []
    for key, condition in value.items():
        if key in _LOGIC:
            inner = condition if isinstance(condition, list) else [condition]
            told = [_translated(one, f"{where}.{key}[{number}]", depth + 1) for number, one in enumerate(inner)]
            parts.append({key: told})
        else:
            parts.extend(_conditions(key, condition))
    if len(parts) == 1:
        return parts[0]
    return {"AND": parts} if parts else {}


def _conditions(key: str, condition: Any) -> list[dict[str, Any]]:
    """Return one field's conditions; `nin`, which the Platform's language lacks, is a negated `in`."""

    def on_field(value: Any) -> dict[str, Any]:
        return {key: value} if key in _FIELDS else {"metadata": {key: value}}

    if not isinstance(condition, Mapping) or "nin" not in condition:
        return [on_field(condition)]
    rest = {operator: value for operator, value in condition.items() if operator != "nin"}
    negated = {"NOT": [on_field({"in": condition["nin"]})]}
    return [negated, on_field(rest)] if rest else [negated]


def _names_one(filters: Mapping[str, Any]) -> bool:
    """Tell whether a filter names a subject at its root, or in an AND there."""
    if any(filters.get(name) is not None for name in SUBJECTS):
        return True
    inner = filters.get("AND")
    return isinstance(inner, list) and any(isinstance(one, Mapping) and _names_one(one) for one in inner)
