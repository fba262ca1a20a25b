"""Random rows, filter trees and JSON for the filter language, drawn from small pools so that they often meet."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from service.filters.ast import All, Any_, Condition, Field, Node, Not, Op
from service.records import Memory, SubjectNames

_NAMES = st.sampled_from(("alice", "bob", "*", "", "jos\u00e9", "jose\u0301", "o'brien\\"))
_UNKNOWN = st.sampled_from(("ghost", "alice", "bob"))
_KEYS = st.sampled_from(("a", "b", "a.b", "a=b", "\u0436"))
_WORDS = st.sampled_from(("", "a", "ab", "AB", "1", "true", "2024-05-01", "2024-05-01T00:00:00Z", "\U0001f375"))
_NUMBERS = st.sampled_from((0, 1, 1.0, -1, 2.5, -0.0, 2**53 + 1, float(2**53), 1e300))
_SCALARS = st.one_of(_WORDS, _NUMBERS, st.booleans())
_JSON = st.recursive(
    _SCALARS | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)
_NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
_MOMENTS = st.sampled_from(
    [_NOON + timedelta(microseconds=step) for step in (-1, 0, 1)] + [_NOON + timedelta(days=400)]
)
_DAYS = st.sampled_from((date(2020, 2, 29), date(2024, 5, 1), date(2024, 5, 2), date(9999, 12, 31)))
_IDS = st.integers(0, 9).map(lambda number: UUID(int=number))


def memories(identifier: UUID) -> st.SearchStrategy[Memory]:
    """Rows with this id."""
    return st.builds(
        Memory,
        id=st.just(identifier),
        text=_WORDS,
        subjects=st.builds(SubjectNames, *(st.none() | _NAMES for _ in range(4))),
        metadata=st.dictionaries(_KEYS, _JSON, max_size=3),
        categories=st.lists(_WORDS, max_size=2).map(tuple),
        created_at=_MOMENTS,
        updated_at=_MOMENTS,
        expires_on=st.none() | _DAYS,
        actor=st.none() | _NAMES,
    )


@st.composite
def populations(draw: st.DrawFn, *, most: int = 8) -> list[Memory]:
    """Some rows with ids of their own."""
    return [draw(memories(UUID(int=number))) for number in range(draw(st.integers(1, most)))]


def _some(field: Field, ops: tuple[Op, ...], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Condition]:
    def of(op: Op, path: tuple[str, ...]) -> st.SearchStrategy[Condition]:
        if op is Op.EXISTS:
            return st.just(Condition(field, op, path=path))
        given = st.lists(values, max_size=3).map(tuple) if op is Op.IN else values
        return given.map(lambda value: Condition(field, op, value, path))

    paths = st.lists(_KEYS, min_size=1, max_size=3).map(tuple) if field is Field.METADATA else st.just(())
    return st.tuples(st.sampled_from(ops), paths).flatmap(lambda drawn: of(*drawn))


_SETS = (Op.EQ, Op.NE, Op.IN, Op.EXISTS)
_RANGES = (Op.GT, Op.GTE, Op.LT, Op.LTE)
_TEXTS = (Op.EQ, Op.NE, Op.CONTAINS, Op.ICONTAINS)

CONDITIONS: st.SearchStrategy[Condition] = st.one_of(
    *(_some(field, _SETS, _NAMES | _UNKNOWN) for field in (Field.USER, Field.AGENT, Field.APP, Field.RUN, Field.ACTOR)),
    *(_some(field, (Op.EQ, Op.NE, Op.IN, *_RANGES), _MOMENTS) for field in (Field.CREATED, Field.UPDATED)),
    _some(Field.EXPIRES, (*_SETS, *_RANGES), _DAYS),
    _some(Field.TEXT, _TEXTS, _WORDS),
    _some(Field.CATEGORIES, _SETS, _WORDS),
    _some(Field.METADATA, (*_SETS, Op.CONTAINS), _SCALARS),
    _some(Field.METADATA, _RANGES, _WORDS | _NUMBERS),
    _some(Field.METADATA, (Op.ICONTAINS,), _WORDS),
    _some(Field.ID, (Op.IN,), _IDS),
)


def _joined(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    parts = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(parts.map(All), parts.map(Any_), inner.map(Not))


#: Trees of every shape the parser can make, and some it cannot.
TREES: st.SearchStrategy[Node] = st.recursive(CONDITIONS, _joined, max_leaves=8)

_FILTER_KEYS = st.sampled_from(
    (
        *("AND", "or", "NOT", "user_id", "created_at", "expiration_date", "text", "categories", "metadata"),
        *("memory_ids", "keywords", "timestamp", "actor_id", "color"),
        *("eq", "ne", "in", "exists", "contains", "gt", "lte", "nin"),
    )
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(alphabet=st.characters(), max_size=8),
    st.sampled_from(("*", "2024-05-01", "9999-12-31", "0001-01-01T00:00:00+14:00", "\x00", "\ud800")),
)

#: JSON that looks like a filter more often than not, with everything wrong that JSON allows.
ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_FILTER_KEYS | st.text(max_size=4), inner, max_size=3),
    max_leaves=25,
)
