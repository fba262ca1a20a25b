"""The parser of the Platform's filter dialect: JSON in, a checked tree out, or a 400 that says where and why.

The language

* The root is an object or a list of objects (a list means AND). `{}` and null ask for nothing: `EVERYTHING`.
* The members of an object are ANDed. `AND` and `OR` take a non-empty list of objects, `NOT` an object or a non-empty
  list: `{"NOT": [a, b]}` is "neither a nor b". The three may be written in lower case.
* `user_id agent_id app_id run_id actor_id`: a string, a list (any of them), `"*"` (is set), null (is not set), or
  `{"eq" | "ne" | "in" | "exists": …}`. `"*"` is a wildcard with eq and ne too, and is refused inside a list.
* `created_at updated_at timestamp` (= created_at): an ISO 8601 date or moment (UTC unless it says otherwise), or
  seconds since 1970, a list of them, or `{"eq" | "ne" | "in" | "gt" | "gte" | "lt" | "lte": …}`. A date stands for its
  whole day: gt is after its end, lte through its end.
* `expiration_date`: likewise, compared by day (of a moment, the day in UTC), also `"*"`, null and `exists`.
* `text`: a string (contains) or `{"eq" | "ne" | "contains" | "icontains": …}`. `keywords`, `keywords_search`: a string
  (icontains) or `{"contains" | "icontains": …}`, on the same text.
* `categories`: a string, a list (any of them), `"*"`, null, or `{"eq" | "ne" | "in" | "contains" | "exists": …}`; eq
  and contains both mean "has this category", which is a whole word, not a part of one.
* `metadata`: `{key: value}` where the value is a scalar (eq), a list (any of them), `"*"`, null, an operator object
  (`eq ne in exists contains icontains gt gte lt lte`), or an object of nested keys. An object is an operator object
  when all its keys are operators; a mixture is refused, so keys that are named like an operator cannot be filtered on.
* `memory_ids`: a string, a list, or `{"eq" | "in": …}`. What is not a UUID matches nothing.

A field that is not set meets `ne` and the negations only. Strings are compared code point by code point, exactly as
they are written: no Unicode normalisation, no trimming; icontains compares case-folded texts. An empty `in` matches
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NoReturn

from service.errors import InvalidInput, shown
from service.filters import values
from service.filters.ast import EVERYTHING, Any_, Condition, Field, Node, Not, Op, Scalar
from service.filters.build import and_
from service.filters.times import day_start
from service.filters.values import FilterLimits

LIMITS: Final = FilterLimits()

#: Words that make an object an operator object. `nin` is Mem0's open-source dialect: it must not pass as a nested key.
_OPERATOR_WORDS: Final = frozenset(Op) | {"nin"}
_RANGES: Final = frozenset({Op.GT, Op.GTE, Op.LT, Op.LTE})
_SETS: Final = frozenset({Op.EQ, Op.NE, Op.IN, Op.EXISTS})

Check = Callable[[object, str, FilterLimits], Scalar]


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a field takes: its operators, what a plain value means, how values are checked, if `*` is always wild."""

    operators: frozenset[Op]
    plain: Op
    check: Check
    wildcard: bool = False


_IDS: Final = _Rule(_SETS, Op.EQ, values.identifier, wildcard=True)
_RULES: Final = {
    "user_id": (Field.USER, _IDS),
    "agent_id": (Field.AGENT, _IDS),
    "app_id": (Field.APP, _IDS),
    "run_id": (Field.RUN, _IDS),
    "actor_id": (Field.ACTOR, _IDS),
    "expiration_date": (Field.EXPIRES, _Rule(_SETS | _RANGES, Op.EQ, values.day)),
    "text": (Field.TEXT, _Rule(frozenset({Op.EQ, Op.NE, Op.CONTAINS, Op.ICONTAINS}), Op.CONTAINS, values.string)),
    "keywords": (Field.TEXT, _Rule(frozenset({Op.CONTAINS, Op.ICONTAINS}), Op.ICONTAINS, values.string)),
    "keywords_search": (Field.TEXT, _Rule(frozenset({Op.CONTAINS, Op.ICONTAINS}), Op.ICONTAINS, values.string)),
    "categories": (Field.CATEGORIES, _Rule(_SETS | {Op.CONTAINS}, Op.EQ, values.string)),
}
_MOMENTS: Final = {"created_at": Field.CREATED, "updated_at": Field.UPDATED, "timestamp": Field.CREATED}
_MOMENT_RULE: Final = _Rule(frozenset({Op.EQ, Op.NE, Op.IN}) | _RANGES, Op.EQ, values.time)
_METADATA_RULE: Final = _Rule(_SETS | _RANGES | {Op.CONTAINS, Op.ICONTAINS}, Op.EQ, values.scalar)
_ID_RULE: Final = _Rule(frozenset({Op.EQ, Op.IN}), Op.EQ, values.uuid_or_none)

_LOGICAL: Final = ("AND", "OR", "NOT")
#: What may stand at the root of a filter.
KEYS: Final = (*_LOGICAL, *_RULES, *_MOMENTS, "metadata", "memory_ids")


def parse_filter(raw: object, *, limits: FilterLimits = LIMITS, where: str = "filters") -> Node:
    """Return the tree of a filter as it came over the wire. `where` names it in errors.

    Raises:
        InvalidInput: for anything outside the language or over a limit, and nothing else for any JSON value. The detail
            names the place and what is allowed there; values and metadata keys are never repeated.
    """
    if raw is None or raw == {}:
        return EVERYTHING
    parser = _Parser(limits)
    if isinstance(raw, list):
        return and_(*parser.trees(raw, where, 1))
    return parser.tree(raw, where, 1)


class _Parser:
    def __init__(self, limits: FilterLimits) -> None:
        self._limits = limits
        self._conditions = 0
        self._values = 0

    def trees(self, raw: object, where: str, depth: int) -> list[Node]:
        if not isinstance(raw, list) or not raw:
            raise InvalidInput(f"{where}: must be a non-empty list of objects")
        return [self.tree(part, f"{where}[{number}]", depth) for number, part in enumerate(raw)]

    def tree(self, raw: object, where: str, depth: int) -> Node:
        members = self._members(raw, where, depth)
        return and_(*(self._member(key, value, where, depth) for key, value in members.items()))

    def _members(self, raw: object, where: str, depth: int) -> Mapping[str, object]:
        if not isinstance(raw, dict) or not raw:
            raise InvalidInput(f"{where}: must be a non-empty object")
        if depth > self._limits.depth:
            raise InvalidInput(f"{where}: a filter may have at most {self._limits.depth} objects inside each other")
        if not all(isinstance(key, str) for key in raw):
            raise InvalidInput(f"{where}: the keys must be strings")
        return raw

    def _member(self, key: str, value: object, where: str, depth: int) -> Node:
        here = f"{where}.{key}"
        match key:
            case "AND" | "and":
                return and_(*self.trees(value, here, depth + 1))
            case "OR" | "or":
                return Any_(tuple(self.trees(value, here, depth + 1)))
            case "NOT" | "not" if isinstance(value, list):
                return Not(Any_(tuple(self.trees(value, here, depth + 1))))
            case "NOT" | "not":
                return Not(self.tree(value, here, depth + 1))
            case "metadata":
                return self._metadata(value, here, (), depth + 1)
            case "memory_ids":
                return self._memory_ids(value, here)
        if key in _MOMENTS:
            return and_(*(self._moment(_MOMENTS[key], *one) for one in self._operations(value, here, _MOMENT_RULE)))
        if key in _RULES:
            field, rule = _RULES[key]
            return self._field(field, (), rule, value, here)
        raise InvalidInput(f"{where}: unknown key {shown(key)}; allowed are {', '.join(KEYS)}")

    def _field(self, field: Field, path: tuple[str, ...], rule: _Rule, value: object, where: str) -> Node:
        return and_(*(self._condition(field, path, rule, *one) for one in self._operations(value, where, rule)))

    def _operations(self, value: object, where: str, rule: _Rule) -> list[tuple[Op, object, str]]:
        """Return the operators of a value with what each is given and where that stands."""
        if isinstance(value, dict):
            if not value or not rule.operators.issuperset(value):
                _refuse(where, rule)
            found = [(Op(key), inner, f"{where}.{key}") for key, inner in value.items()]
        elif isinstance(value, list):
            found = [(Op.IN, value, where)]
        elif value is None:
            found = [(Op.EXISTS, False, where)]
        elif value == "*" and Op.EXISTS in rule.operators:
            found = [(Op.EXISTS, True, where)]
        else:
            found = [(rule.plain, value, where)]
        if any(operator not in rule.operators for operator, _, _ in found):
            _refuse(where, rule)
        self._count(len(found), where)
        return found

    def _count(self, more: int, where: str) -> None:
        self._conditions += more
        if self._conditions > self._limits.conditions:
            raise InvalidInput(f"{where}: a filter may have at most {self._limits.conditions} conditions")

    def _condition(
        self, field: Field, path: tuple[str, ...], rule: _Rule, operator: Op, value: object, where: str
    ) -> Node:
        is_set = Condition(field, Op.EXISTS, path=path)
        wild = value is None or (rule.wildcard and value == "*")
        if operator in (Op.EQ, Op.NE) and wild and Op.EXISTS in rule.operators:
            return is_set if (operator is Op.EQ) is (value is not None) else Not(is_set)
        if operator is Op.EXISTS:
            if not isinstance(value, bool):
                raise InvalidInput(f"{where}: must be true or false")
            return is_set if value else Not(is_set)
        if operator is Op.IN:
            return self._any_of(field, path, rule, value, where)
        if field is Field.METADATA:
            if operator in _RANGES:
                return Condition(field, operator, values.number_or_string(value, where, self._limits), path)
            if operator is Op.ICONTAINS:
                return Condition(field, operator, values.string(value, where, self._limits), path)
        if field is Field.CATEGORIES and operator is Op.CONTAINS:
            operator = Op.EQ
        return Condition(field, operator, rule.check(value, where, self._limits), path)

    def _any_of(self, field: Field, path: tuple[str, ...], rule: _Rule, value: object, where: str) -> Node:
        given = self._list(value, where)
        if rule.wildcard and "*" in given:
            raise InvalidInput(f'{where}: "*" (is set) stands alone, not in a list')
        wanted: Node = Condition(
            field,
            Op.IN,
            tuple(
                rule.check(one, f"{where}[{number}]", self._limits)
                for number, one in enumerate(given)
                if one is not None or Op.EXISTS not in rule.operators
            ),
            path,
        )
        if None in given:
            self._count(1, where)
            wanted = Any_((wanted, Not(Condition(field, Op.EXISTS, path=path))))
        return wanted

    def _list(self, value: object, where: str) -> list[object]:
        if not isinstance(value, list):
            raise InvalidInput(f"{where}: must be a list")
        if len(value) > self._limits.values:
            raise InvalidInput(f"{where}: must have at most {self._limits.values} values")
        self._values += len(value)
        most = self._limits.all_values
        if self._values > most:
            raise InvalidInput(f"{where}: the lists of a filter may have at most {most} values together")
        return value

    def _moment(self, field: Field, operator: Op, value: object, where: str) -> Node:
        if operator is not Op.IN:
            return self._one_moment(field, operator, value, where)
        each = [
            self._one_moment(field, Op.EQ, one, f"{where}[{number}]")
            for number, one in enumerate(self._list(value, where))
        ]
        moments = tuple(one.value for one in each if isinstance(one, Condition) and one.op is Op.EQ)
        days = [one for one in each if not isinstance(one, Condition) or one.op is not Op.EQ]
        self._count(len(days), where)
        wanted = Condition(field, Op.IN, tuple(one for one in moments if not isinstance(one, tuple)))
        return Any_((wanted, *days)) if days else wanted

    def _one_moment(self, field: Field, operator: Op, value: object, where: str) -> Node:
        found = values.time(value, where, self._limits)
        if isinstance(found, datetime):
            return Condition(field, operator, found)
        start = day_start(found)
        from_start = Condition(field, Op.GTE, start)
        try:
            end = start + timedelta(days=1)
        except OverflowError:  # the last day of the calendar: nothing is after it
            through: Node = EVERYTHING
            after: Node = Any_()
        else:
            through, after = Condition(field, Op.LT, end), Condition(field, Op.GTE, end)
        match operator:
            case Op.EQ:
                return and_(from_start, through)
            case Op.NE:
                return Not(and_(from_start, through))
            case Op.GT:
                return after
            case Op.GTE:
                return from_start
            case Op.LT:
                return Condition(field, Op.LT, start)
            case _:
                return through

    def _metadata(self, raw: object, where: str, path: tuple[str, ...], depth: int) -> Node:
        """Parse an object of metadata keys. Places are told by number: a key may itself be confidential."""
        members = self._members(raw, where, depth)
        if not _OPERATOR_WORDS.isdisjoint(members):
            raise InvalidInput(
                f"{where}: operators stand in an object of their own under a metadata key, not beside keys; a key that "
                "is named like an operator cannot be filtered on"
            )
        parts = []
        for number, (key, value) in enumerate(members.items(), start=1):
            here = f"{where}.<key {number}>"
            inner = (*path, values.string(key, here, self._limits))
            if isinstance(value, dict) and not (value and _OPERATOR_WORDS.issuperset(value)):
                parts.append(self._metadata(value, here, inner, depth + 1))
            else:
                parts.append(self._field(Field.METADATA, inner, _METADATA_RULE, value, here))
        return and_(*parts)

    def _memory_ids(self, value: object, where: str) -> Node:
        parts = []
        for operator, given, here in self._operations(value, where, _ID_RULE):
            several = self._list(given, here) if operator is Op.IN else [given]
            found = (values.uuid_or_none(one, here, self._limits) for one in several)
            parts.append(Condition(Field.ID, Op.IN, tuple(one for one in found if one is not None)))
        return and_(*parts)


def _refuse(where: str, rule: _Rule) -> NoReturn:
    allowed = ", ".join(operator for operator in Op if operator in rule.operators)
    raise InvalidInput(f"{where}: not a value or operator of this field; its operators are {allowed}")
