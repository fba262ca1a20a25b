"""The truth table of the filter language as code: whether a decrypted memory meets a filter.

What the compilers must agree with:

* A field that is not set meets `ne` and negations only; `ne` is the exact opposite of `eq`.
* Values of different types are neither equal nor ordered. A boolean is no number. Numbers compare by value: 1 is 1.0.
* Metadata: null is "not set"; `{}` and `[]` are set. A path goes through lists, and where it meets several values, one
  of them is enough for every operator but `ne`. The elements of a list count one by one, nested lists included.
* contains on metadata: a part of a string, or a whole element of a list; icontains the same on case-folded strings.
* gt, gte, lt, lte on metadata: numbers by value. Two strings that both are ISO 8601 dates or moments by time, a date
  being the first moment of its day in UTC; any other two strings code point by code point.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, Final

from service.filters.ast import All, Any_, Condition, Field, Node, Not, Op, Scalar
from service.filters.times import day_start, read_time
from service.records import Json, Memory

_ORDER: Final[Mapping[Op, Callable[[Any, Any], bool]]] = {
    Op.GT: operator.gt,
    Op.GTE: operator.ge,
    Op.LT: operator.lt,
    Op.LTE: operator.le,
}


def matches(node: Node, memory: Memory) -> bool:
    """Tell whether the memory meets the filter. Pure: no clock, no store."""
    match node:
        case All(parts):
            return all(matches(part, memory) for part in parts)
        case Any_(parts):
            return any(matches(part, memory) for part in parts)
        case Not(part):
            return not matches(part, memory)
        case Condition(op=Op.NE):
            return not _holds(node, Op.EQ, memory)
        case Condition():
            return _holds(node, node.op, memory)


def _holds(condition: Condition, op: Op, memory: Memory) -> bool:
    reached = [value for value in _reached(condition, memory) if value is not None]
    wanted = condition.value
    match op:
        case Op.EXISTS:
            return bool(reached)
        case Op.EQ:
            return any(_same(value, wanted) for value in _elements(reached))
        case Op.IN:
            return any(_is_one_of(value, condition.options) for value in _elements(reached))
        case Op.CONTAINS:
            return any(_contains(value, wanted) for value in reached)
        case Op.ICONTAINS:
            return any(_contains(_folded(value), _folded(wanted)) for value in reached)
        case _:
            return any(_ordered(value, wanted, _ORDER[op]) for value in _elements(reached))


def _reached(condition: Condition, memory: Memory) -> Iterator[Json]:
    """Yield the values that the condition looks at; None stands for a field that is not set."""
    match condition.field:
        case Field.METADATA:
            yield from _follow(memory.metadata, condition.path)
        case Field.CATEGORIES:
            if memory.categories:
                yield list(memory.categories)
        case Field.USER:
            yield memory.subjects.user_id
        case Field.AGENT:
            yield memory.subjects.agent_id
        case Field.APP:
            yield memory.subjects.app_id
        case Field.RUN:
            yield memory.subjects.run_id
        case Field.ACTOR:
            yield memory.actor
        case Field.CREATED:
            yield memory.created_at
        case Field.UPDATED:
            yield memory.updated_at
        case Field.EXPIRES:
            yield memory.expires_on
        case Field.TEXT:
            yield memory.text
        case Field.ID:
            yield memory.id


def _follow(value: Json, path: tuple[str, ...]) -> Iterator[Json]:
    if not path:
        yield value
    elif isinstance(value, Mapping):
        if path[0] in value:
            yield from _follow(value[path[0]], path[1:])
    elif isinstance(value, list | tuple):
        for element in value:
            yield from _follow(element, path)


def _elements(values: list[Json] | tuple[Json, ...]) -> Iterator[Json]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _elements(value)
        else:
            yield value


def _same(value: Json, wanted: Json) -> bool:
    return isinstance(value, bool) is isinstance(wanted, bool) and value is not None and bool(value == wanted)


def _is_one_of(value: Json, options: frozenset[tuple[bool, Scalar]]) -> bool:
    # An object is no value of a condition, and cannot be looked up.
    return value is not None and not isinstance(value, Mapping) and (isinstance(value, bool), value) in options


def _contains(value: Json, wanted: Json) -> bool:
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    return isinstance(value, list | tuple) and any(_same(element, wanted) for element in _elements(value))


def _folded(value: Json) -> Json:
    if isinstance(value, str):
        return value.casefold()
    if isinstance(value, list | tuple):
        return [_folded(element) for element in value]
    return value


def _ordered(value: Json, wanted: Json, compare: Callable[[Any, Any], bool]) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        times = _moment(value), _moment(wanted)
        return compare(*times) if None not in times else compare(value, wanted)
    if isinstance(value, date):
        # A datetime is a date to Python and has no order with one.
        return type(value) is type(wanted) and compare(value, wanted)
    return _is_number(value) and _is_number(wanted) and compare(value, wanted)


def _moment(text: str) -> datetime | None:
    found = read_time(text)
    return found if found is None or isinstance(found, datetime) else day_start(found)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
