"""From the filter tree back to the Platform's dialect: `parse_filter(as_wire(tree))` decides as the tree does."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

from service.filters.ast import EVERYTHING, All, Any_, Condition, Field, Node, Not, Op, Scalar
from service.records import Json

#: What no memory meets; the dialect has no empty OR.
_NOTHING: dict[str, Json] = {"memory_ids": {"in": []}}


def as_wire(node: Node) -> dict[str, Json]:
    """Return the tree as JSON in the dialect of the Platform."""
    if node == EVERYTHING:
        return {}
    match node:
        case All(parts):
            return {"AND": [_inner(part) for part in parts]}
        case Any_(parts):
            return {"OR": [_inner(part) for part in parts]} if parts else dict(_NOTHING)
        case Not(part):
            return {"NOT": _inner(part)}
        case Condition():
            return _condition(node)


def _inner(node: Node) -> dict[str, Json]:
    """Return a part of a tree; a part that every memory meets cannot be an empty object there."""
    return as_wire(node) or {"NOT": dict(_NOTHING)}


def _condition(condition: Condition) -> dict[str, Json]:
    value: Any = condition.value
    if condition.op is Op.EXISTS:
        compared: dict[str, Json] = {"exists": True}
    elif isinstance(value, tuple):
        compared = {condition.op.value: [_scalar(one) for one in value]}
    else:
        compared = {condition.op.value: _scalar(value)}
    if condition.field is not Field.METADATA:
        return {condition.field.value: compared}
    nested: Json = compared
    for key in reversed(condition.path):
        nested = {key: nested}
    return {"metadata": nested}


def _scalar(value: Scalar) -> Json:
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if isinstance(value, date) else value
