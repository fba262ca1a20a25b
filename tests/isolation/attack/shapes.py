"""Shapes that nobody thought of: filters and bodies drawn at random, with the victim's things among their leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st

from tests.isolation.attack.calls import Call
from tests.isolation.attack.plan import Attack, Fill
from tests.isolation.attack.surface import Operation, Place

#: Stands for the target until the call is spelled out.
TARGET: Final = "<target>"
_KINDS: Final = ("user", "agent", "memory", "tenant")
_KEYS: Final = st.sampled_from(
    (
        *("AND", "OR", "NOT", "and", "or", "not", "$or", "must", "should", "must_not", "filter"),
        *("user_id", "agent_id", "app_id", "run_id", "actor_id", "memory_ids", "id", "tenant_id", "metadata"),
        *("categories", "created_at", "expiration_date", "text", "keywords", "key", "match", "value", "has_id"),
        *("eq", "ne", "in", "nin", "gt", "gte", "lt", "contains", "icontains", "exists", "*", "", "\x00", "topic"),
    )
)
_LEAVES: Final = st.one_of(
    st.just(TARGET),
    st.just(TARGET),
    st.sampled_from((None, True, False, 0, -1, 1.5, 10**20, "", "*", "alice", "bob", "\x00", "2099-01-01", "drinks")),
    st.text(max_size=6).filter(str.isprintable),
)
JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, min_size=1, max_size=3),
    max_leaves=12,
)
OBJECTS: Final = st.dictionaries(_KEYS, JSON, min_size=1, max_size=3)


def filters(operation: Operation) -> st.SearchStrategy[Sequence[Attack]]:
    """Batches of random filters for an operation that takes filters."""
    (place, *_) = operation.holding("filters")
    one = st.builds(
        lambda kind, shape: Attack("random filter", kind, partial(_put, operation, {place: shape})),
        st.sampled_from(_KINDS),
        OBJECTS | st.lists(OBJECTS, max_size=3),
    )
    return st.lists(one, min_size=12, max_size=12)


def bodies(operation: Operation) -> st.SearchStrategy[Sequence[Attack]]:
    """Batches of random values in the places of an operation."""
    values = st.dictionaries(st.sampled_from(operation.places), JSON, min_size=1, max_size=3)
    one = st.builds(
        lambda kind, shape: Attack("random values", kind, partial(_put, operation, shape), whole=False),
        st.sampled_from(_KINDS),
        values,
    )
    return st.lists(one, min_size=12, max_size=12)


def _put(operation: Operation, shape: dict[Place, Any], target: str, fill: Fill) -> Call:
    parts = operation.parts
    for place, value in shape.items():
        aimed = _aimed(value, target)
        if place.kind == "idempotency" and target not in json.dumps(aimed):
            # The same key for both calls, whose bodies differ, would meet itself.
            aimed = f"{aimed if isinstance(aimed, str) else json.dumps(aimed)}{target}"
        parts = parts.put(place, aimed)
    return operation.call(fill(parts))


def _aimed(value: Any, target: str) -> Any:
    if value == TARGET:
        return target
    if isinstance(value, dict):
        return {key: _aimed(one, target) for key, one in value.items()}
    if isinstance(value, list):
        return [_aimed(one, target) for one in value]
    return value
