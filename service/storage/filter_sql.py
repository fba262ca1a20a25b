"""The compiler from the filter tree to SQL: the rows that may match, and whether these are exactly the ones that do.

What Postgres cannot see, because it is encrypted (the text, substrings and ranges in metadata), is relaxed so that the
clause always lets through at least the right rows; `Compiled.exact` then is False and the caller drops the others with
`service.filters.evaluate.matches` on the decrypted rows. A clause is never NULL, so NOT means not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    FromClause,
    Uuid,
    and_,
    any_,
    cast,
    false,
    not_,
    or_,
    true,
)
from sqlalchemy import literal as bound
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from service.filters.ast import All, Any_, Condition, Field, Node, Not, Op
from service.filters.lookup import Lookup
from service.filters.tokens import condition_tokens, needed_token

_COLUMNS: Final = {
    Field.USER: "user_id",
    Field.AGENT: "agent_id",
    Field.APP: "app_id",
    Field.RUN: "run_id",
    Field.CREATED: "created_at",
    Field.UPDATED: "updated_at",
    Field.EXPIRES: "expires_on",
    Field.ID: "id",
}
_TYPES: Final[Mapping[Field, TypeEngine[Any]]] = {
    Field.CREATED: DateTime(timezone=True),
    Field.UPDATED: DateTime(timezone=True),
    Field.EXPIRES: Date(),
}
_ORDER: Final[Mapping[Op, Callable[[Any, Any], ColumnElement[bool]]]] = {
    Op.GT: lambda column, value: column > value,
    Op.GTE: lambda column, value: column >= value,
    Op.LT: lambda column, value: column < value,
    Op.LTE: lambda column, value: column <= value,
}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A clause for WHERE. It keeps every row that meets the filter; when `exact`, it keeps no other."""

    clause: ColumnElement[bool]
    exact: bool


def compile_sql(node: Node, lookup: Lookup, table: FromClause) -> Compiled:
    """Return the clause for a filter on a table with the columns of `memories`.

    The columns it uses: id, user_id, agent_id, app_id, run_id, created_at, updated_at, expires_on, tokens. It says
    nothing about tenant or scope: the caller ANDs these to it.
    """
    return _Compiler(lookup, table).compile(node, widen=True)


class _Compiler:
    def __init__(self, lookup: Lookup, table: FromClause) -> None:
        self._lookup = lookup
        self._table = table

    def compile(self, node: Node, *, widen: bool) -> Compiled:
        """Return a clause that errs to more rows with `widen`, to fewer without: under a NOT fewer becomes more."""
        match node:
            case All(parts):
                inner = [self.compile(part, widen=widen) for part in parts]
                return Compiled(and_(true(), *(one.clause for one in inner)), all(one.exact for one in inner))
            case Any_(parts):
                inner = [self.compile(part, widen=widen) for part in parts]
                return Compiled(or_(false(), *(one.clause for one in inner)), all(one.exact for one in inner))
            case Not(part):
                opposite = self.compile(part, widen=not widen)
                return Compiled(not_(opposite.clause), opposite.exact)
            case Condition():
                return self._condition(node, widen)

    def _condition(self, condition: Condition, widen: bool) -> Compiled:
        if condition.field in _COLUMNS:
            clause = self._on_column(condition)
            return Compiled(not_(clause) if condition.op is Op.NE else clause, exact=True)
        texts = condition_tokens(condition)
        if texts is not None:
            clause = self._has_any_token(texts)
            return Compiled(not_(clause) if condition.op is Op.NE else clause, exact=True)
        if not widen:
            return Compiled(false(), exact=False)
        needed = needed_token(condition)
        return Compiled(true() if needed is None else self._has_any_token((needed,)), exact=False)

    def _has_any_token(self, texts: tuple[str, ...]) -> ColumnElement[bool]:
        if not texts:
            return false()
        tokens = self._table.c.tokens
        wanted = bound([self._lookup.token(text) for text in texts], ARRAY(BigInteger))
        operator = "@>" if len(texts) == 1 else "&&"
        return tokens.bool_op(operator)(cast(wanted, ARRAY(BigInteger)))

    def _on_column(self, condition: Condition) -> ColumnElement[bool]:
        """Return the clause of a condition on a column; of `ne`, the one of its opposite.

        `IS NOT NULL AND …` is false, not NULL, where the column is not set, and leaves the comparison to an index.
        """
        column = self._table.c[_COLUMNS[condition.field]]
        if condition.op is Op.EXISTS:
            return column.is_not(None)
        kind = _TYPES.get(condition.field, Uuid())
        values = self._values(condition)
        if condition.op in _ORDER:
            return and_(column.is_not(None), *(_ORDER[condition.op](column, bound(value, kind)) for value in values))
        if not values:
            return false()
        if len(values) == 1:
            return and_(column.is_not(None), column == bound(values[0], kind))
        return and_(column.is_not(None), column == any_(cast(bound(values, ARRAY(kind)), ARRAY(kind))))

    def _values(self, condition: Condition) -> list[UUID | datetime | date]:
        """Return what the column is compared with. A subject that the tenant does not have leaves nothing."""
        given = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        kind = condition.field.subject
        if kind is None:
            return [value for value in given if isinstance(value, UUID | date)]
        found = (self._lookup.subject(kind, name) for name in given if isinstance(name, str))
        return [surrogate for surrogate in found if surrogate is not None]
