"""Reads a set of retention rules from what a YAML or JSON document holds, pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

from service.errors import InvalidInput
from service.filters.parse import parse_filter
from service.holds.rules import CountedFrom, RuleAction, RuleBody
from service.holds.spans import Span, read_span

_FIELDS: Final = ("name", "match", "action", "counted_from", "age", "grace", "minimum", "priority")
_E = TypeVar("_E", bound=StrEnum)


def rules_of(document: Any) -> list[RuleBody]:
    """Return the rules of a document: `{"rules": [...]}`; other keys beside `description` are an error.

    Raises:
        InvalidInput: naming the place that cannot be understood.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("rules"), list):
        raise InvalidInput("the document must have a list of rules under `rules`")
    unknown = set(map(str, document)) - {"rules", "description"}
    if unknown:
        raise InvalidInput(f"{min(unknown)[:64]}: is not known; there are rules and description")
    return [rule_of(one, f"rules[{number}]") for number, one in enumerate(document["rules"])]


def rule_of(raw: Any, where: str) -> RuleBody:
    """Return one rule.

    Raises:
        InvalidInput: naming the place that cannot be understood.
    """
    if not isinstance(raw, Mapping):
        raise InvalidInput(f"{where}: must be an object")
    for key in raw:
        if key not in _FIELDS and key != "description":
            raise InvalidInput(f"{where}.{str(key)[:64]}: is not known; there are {', '.join(_FIELDS)}")
    name, priority = raw.get("name"), raw.get("priority", 0)
    if not isinstance(name, str):
        raise InvalidInput(f"{where}.name: must be a string")
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise InvalidInput(f"{where}.priority: must be a whole number")
    return RuleBody(
        name=name,
        where=parse_filter(raw.get("match"), where=f"{where}.match"),
        action=_one_of(RuleAction, raw.get("action", RuleAction.DELETE), f"{where}.action"),
        counted_from=_one_of(CountedFrom, raw.get("counted_from", CountedFrom.CREATED), f"{where}.counted_from"),
        age=_span(raw.get("age"), f"{where}.age"),
        grace=_span(raw.get("grace"), f"{where}.grace"),
        minimum=_span(raw.get("minimum"), f"{where}.minimum"),
        priority=priority,
    )


def _one_of(kind: type[_E], value: Any, where: str) -> _E:
    if not isinstance(value, str) or value not in tuple(kind):
        raise InvalidInput(f"{where}: must be one of {', '.join(kind)}")
    return kind(value)


def _span(value: Any, where: str) -> Span | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(f"{where}: must be an ISO 8601 duration such as P30D, P6Y or PT12H")
    return read_span(value, where)
