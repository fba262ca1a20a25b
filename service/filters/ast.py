"""The filter tree: what every face's filter is parsed into and every store's compiler starts from.

A tree is made of `All` (AND), `Any_` (OR), `Not` and `Condition`. It never holds the caller's scope: that is ANDed
above the tree by the record and by the index, so that no filter, however shaped, can widen what a caller may see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

from service.scope import SubjectKind


class Field(StrEnum):
    """What a condition can look at."""

    USER = "user_id"
    AGENT = "agent_id"
    APP = "app_id"
    RUN = "run_id"
    ACTOR = "actor_id"
    CREATED = "created_at"
    UPDATED = "updated_at"
    EXPIRES = "expiration_date"
    TEXT = "text"
    CATEGORIES = "categories"
    METADATA = "metadata"
    ID = "memory_ids"

    @property
    def subject(self) -> SubjectKind | None:
        """The kind of subject that this field names, or None."""
        return _SUBJECTS.get(self)


_SUBJECTS = {
    Field.USER: SubjectKind.USER,
    Field.AGENT: SubjectKind.AGENT,
    Field.APP: SubjectKind.APP,
    Field.RUN: SubjectKind.RUN,
}


class Op(StrEnum):
    """How a condition compares. `exists` is what the wire writes as `*` and as `{"exists": true}`.

    A field that is not set meets no condition but `ne` and a negation: `ne` is the exact complement of `eq`.
    """

    EQ = "eq"
    NE = "ne"
    IN = "in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    CONTAINS = "contains"
    ICONTAINS = "icontains"
    EXISTS = "exists"


Scalar: TypeAlias = str | int | float | bool | datetime | date | UUID | None


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison. `path` is the nested key, for metadata only; `value` is a tuple for `in`, None for `exists`.

    Which operators a field takes, and the type of its values:

        user_id agent_id app_id run_id actor_id   eq ne in exists                          str
        created_at updated_at                     eq ne in gt gte lt lte                   datetime with a time zone
        expiration_date                           eq ne in gt gte lt lte exists            date
        text                                      eq ne contains icontains                 str
        categories                                eq ne in contains exists                 str
        metadata                                  all                                      str, number, bool
        memory_ids                                in                                       UUID

    "Not set" is written `Not(exists)`; a value is never None.
    """

    field: Field
    op: Op
    value: Scalar | tuple[Scalar, ...] = None
    path: tuple[str, ...] = ()
    #: The values of `in` to look one up in, each beside whether it is a boolean: to Python True is 1.
    options: frozenset[tuple[bool, Scalar]] = dataclasses.field(
        init=False, repr=False, compare=False, default=frozenset()
    )

    def __post_init__(self) -> None:
        if bool(self.path) is not (self.field is Field.METADATA):
            raise ValueError("a condition on metadata has a path, any other has none")
        if isinstance(self.value, tuple) is not (self.op is Op.IN):
            raise ValueError("a condition with `in` has a tuple of values, any other has one value")
        if isinstance(self.value, tuple):
            object.__setattr__(self, "options", frozenset((isinstance(one, bool), one) for one in self.value))


@dataclass(frozen=True, slots=True)
class All:
    """True when every part is; `All()` is true."""

    parts: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Any_:
    """True when some part is; `Any_()` is false."""

    parts: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    """True when its part is not."""

    part: Node


Node: TypeAlias = All | Any_ | Not | Condition

#: The filter that every row meets.
EVERYTHING = All()


def conditions(node: Node) -> Iterator[Condition]:
    """Yield every condition of the tree, in reading order."""
    match node:
        case Condition():
            yield node
        case Not(part):
            yield from conditions(part)
        case All(parts) | Any_(parts):
            for part in parts:
                yield from conditions(part)


def subject_names(node: Node) -> set[tuple[SubjectKind, str]]:
    """Return every (kind, name) that the tree compares with, so that all are looked up at once."""
    found: set[tuple[SubjectKind, str]] = set()
    for condition in conditions(node):
        kind = condition.field.subject
        if kind is None or condition.op is Op.EXISTS:
            continue
        values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        found.update((kind, value) for value in values if isinstance(value, str))
    return found
