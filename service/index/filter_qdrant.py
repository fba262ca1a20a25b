"""The compiler from the filter tree to a selection of points, and whether these are exactly the ones that match.

What the index cannot see (the text, substrings and ranges in metadata) is relaxed so that the selection always holds at
least the right points; `Compiled.exact` then is False and the caller drops the others with
`service.filters.evaluate.matches` on the decrypted rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from service.filters.ast import All, Any_, Condition, Field, Node, Not, Op
from service.filters.lookup import Lookup
from service.filters.tokens import condition_tokens, needed_token
from service.index.selection import NEVER, Between, Every, Except, Has, IsSet, Key, Selection, Some

_KEYS: Final = {
    Field.USER: Key.USER,
    Field.AGENT: Key.AGENT,
    Field.APP: Key.APP,
    Field.RUN: Key.RUN,
    Field.CREATED: Key.CREATED,
    Field.UPDATED: Key.UPDATED,
    Field.EXPIRES: Key.EXPIRES,
    Field.ID: Key.MEMORY,
}
_ORDER: Final = frozenset({Op.GT, Op.GTE, Op.LT, Op.LTE})


@dataclass(frozen=True, slots=True)
class Compiled:
    """A selection. It keeps every point that meets the filter; when `exact`, it keeps no other."""

    selection: Selection
    exact: bool


def compile_qdrant(node: Node, lookup: Lookup) -> Compiled:
    """Return the selection for a filter. It says nothing about tenant or scope: `selection.within` puts these above."""
    return _compile(node, lookup, widen=True)


def _compile(node: Node, lookup: Lookup, *, widen: bool) -> Compiled:
    """Return a selection that errs to more points with `widen`, to fewer without: under a NOT fewer becomes more."""
    match node:
        case All(parts) | Any_(parts):
            inner = [_compile(part, lookup, widen=widen) for part in parts]
            join = Every if isinstance(node, All) else Some
            return Compiled(join(tuple(one.selection for one in inner)), all(one.exact for one in inner))
        case Not(part):
            opposite = _compile(part, lookup, widen=not widen)
            return Compiled(Except(opposite.selection), opposite.exact)
        case Condition():
            return _condition(node, lookup, widen)


def _condition(condition: Condition, lookup: Lookup, widen: bool) -> Compiled:
    texts = condition_tokens(condition)
    if condition.field in _KEYS:
        found = _on_field(condition, _KEYS[condition.field], lookup)
    elif texts is not None:
        found = _tokens(texts, lookup)
    elif not widen:
        return Compiled(Some(), exact=False)
    else:
        needed = needed_token(condition)
        return Compiled(Every() if needed is None else _tokens((needed,), lookup), exact=False)
    return Compiled(Except(found) if condition.op is Op.NE else found, exact=True)


def _tokens(texts: tuple[str, ...], lookup: Lookup) -> Selection:
    return Has(Key.TOKENS, tuple(lookup.token(text) for text in texts))


def _on_field(condition: Condition, key: Key, lookup: Lookup) -> Selection:
    """Return the selection of a condition on a field of its own; of `ne`, the one of its opposite."""
    if condition.op is Op.EXISTS:
        return Between(key, lt=NEVER) if key is Key.EXPIRES else IsSet(key)
    values = _values(condition, lookup)
    if key not in (Key.CREATED, Key.UPDATED, Key.EXPIRES):
        return Has(key, tuple(values))
    if condition.op in _ORDER:
        return Some(tuple(_bounded(key, condition.op, value) for value in values))
    return Some(tuple(Between(key, gte=value, lte=value) for value in values))


def _bounded(key: Key, op: Op, value: Any) -> Selection:
    bounds = {op.value: value}
    if key is Key.EXPIRES and op in (Op.GT, Op.GTE):
        # "Never" is stored as a day after all days, and is later than none.
        bounds["lt"] = NEVER
    return Between(key, **bounds)


def _values(condition: Condition, lookup: Lookup) -> list[Any]:
    """Return what the field is compared with. A subject that the tenant does not have leaves nothing."""
    given = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    kind = condition.field.subject
    if kind is not None:
        found = (lookup.subject(kind, name) for name in given if isinstance(name, str))
        return [str(surrogate) for surrogate in found if surrogate is not None]
    match condition.field:
        case Field.ID:
            return [str(value) for value in given if isinstance(value, UUID)]
        case Field.EXPIRES:
            return [value.toordinal() for value in given if type(value) is date]
        case _:
            return [value for value in given if isinstance(value, datetime)]
