"""What a point's parts are called and which points are meant, in a form that knows no client library.

Filters compile to selections, and adapters translate them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID, uuid5

from service.scope import TenantId


class Key(StrEnum):
    """The fields of a point. Short and without meaning to a reader, for they are stored with each one."""

    TENANT = "t"
    MEMORY = "m"
    VERSION = "v"
    USER = "u"
    AGENT = "a"
    APP = "p"
    RUN = "r"
    TOKENS = "k"
    CREATED = "c"
    UPDATED = "s"
    EXPIRES = "x"


#: The fields that say whose memory it is.
SUBJECTS: Final = frozenset({Key.USER, Key.AGENT, Key.APP, Key.RUN})
#: The dense vector of a point, and the one of its words.
DENSE: Final = "d"
TERMS: Final = "b"
#: The place of a memory in its line, to be read back. It is found through the tokens, which it is one of too.
PLACE: Final = "n"
#: What is read back of a point that was found.
IDENTITY: Final[list[str]] = [Key.MEMORY.value, Key.VERSION.value, Key.CREATED.value, PLACE]
#: The day (ordinal) on which a memory without an end expires: after all days of the calendar.
NEVER: Final = date.max.toordinal() + 1

Value: TypeAlias = str | int


@dataclass(frozen=True, slots=True)
class Has:
    """The field has one of these values; with none, no point is meant."""

    key: Key
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class IsSet:
    """The field is there."""

    key: Key


@dataclass(frozen=True, slots=True)
class Between:
    """The field is there and within these bounds, all of them moments or all of them numbers."""

    key: Key
    gt: datetime | int | None = None
    gte: datetime | int | None = None
    lt: datetime | int | None = None
    lte: datetime | int | None = None


@dataclass(frozen=True, slots=True)
class Points:
    """The points with these ids."""

    ids: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Every:
    """All of the parts hold; without parts, every point is meant."""

    parts: tuple[Selection, ...] = ()


@dataclass(frozen=True, slots=True)
class Some:
    """One of the parts holds; without parts, no point is meant."""

    parts: tuple[Selection, ...] = ()


@dataclass(frozen=True, slots=True)
class Except:
    """The part does not hold."""

    part: Selection


Selection: TypeAlias = Has | IsSet | Between | Points | Every | Some | Except


def point_id(tenant_id: TenantId, memory_id: UUID) -> UUID:
    """Return the id of a memory's point. Of two tenants that use the same memory id, each has its own point."""
    return uuid5(tenant_id, str(memory_id))


def point_ids(tenant_id: TenantId, memory_ids: Iterable[UUID]) -> frozenset[UUID]:
    """Return the ids of the points of several memories."""
    return frozenset(point_id(tenant_id, memory_id) for memory_id in memory_ids)


def own_subject(tenant_id: TenantId, surrogate: UUID) -> UUID:
    """Return what a tenant's subject is called in an index whose subjects tell their tenant: no other tenant has it."""
    return uuid5(tenant_id, str(surrogate))


def within(
    tenant_id: TenantId, inner: Selection, *, users: frozenset[UUID] | None = None, on: date | None = None
) -> Selection:
    """Put the pins above a selection: the tenant, the users of a bound principal, and the day of visibility.

    The client's part stays a node of its own below them, so that nothing in it can loosen a pin.
    """
    pins: list[Selection] = [Has(Key.TENANT, (str(tenant_id),))]
    if users is not None:
        pins.append(Has(Key.USER, tuple(sorted(map(str, users)))))
    if on is not None:
        pins.append(Between(Key.EXPIRES, gte=on.toordinal()))
    return Every((*pins, inner))


def naming_subjects(selection: Selection) -> Selection:
    """Return what a selection says of subjects by name, without the rest: it means the same points and more.

    Every point, when the selection lets in points of any subject.
    """
    return _naming_subjects(selection) or Every()


def _naming_subjects(selection: Selection) -> Selection | None:
    match selection:
        case Has(key, values) if key in SUBJECTS:
            return Has(key, tuple(sorted(set(values), key=str)))
        case Every(parts):
            found = tuple(named for part in parts if (named := _naming_subjects(part)) is not None)
            return Every(found) if found else None
        case Some(parts) if parts:
            found = tuple(named for part in parts if (named := _naming_subjects(part)) is not None)
            return Some(found) if len(found) == len(parts) else None
        case _:
            return None
