"""Keeps which memories the language model was asked about, so that nobody asks again about what did not change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    DateTime,
    SmallInteger,
    Uuid,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from service import clock
from service.scope import Scope
from service.storage.record import memories_table, one_of
from service.storage.superseding import is_current
from service.storage.tables import ComparisonRow

_comparisons: Final[Any] = ComparisonRow.__table__  # type: ignore[attr-defined]
_c: Final[Any] = _comparisons.c
_m: Final[Any] = memories_table.c
_SUBJECTS: Final = ("user_id", "agent_id", "app_id", "run_id")
#: Tries are only compared; beyond this many nobody needs to know.
_MOST_TRIES: Final = 1000


@dataclass(frozen=True, slots=True)
class Unasked:
    """A memory that nobody asked about as it is now. `subjects` are its user, agent, app and run, in this order."""

    id: UUID
    subjects: tuple[UUID | None, ...]
    tries: int
    created_at: datetime


def unasked(connection: Connection, *, on: date, after: Unasked | None, limit: int) -> list[Unasked]:
    """Return memories that were not asked about since they were changed: those tried least first, then the newest.

    What is alone with its user, agent, app and run has nothing to be compared with, and is left out.
    """
    together = func.count().over(partition_by=[_m[name] for name in _SUBJECTS])
    columns = (_m.tenant_id, _m.id, _m.version, _m.created_at, *(_m[name] for name in _SUBJECTS))
    shared = select(*columns, together.label("together"))
    found: Any = shared.where(*_seen(on)).subquery("shared")
    tries = func.coalesce(_c.tries, 0)
    same = and_(_c.tenant_id == found.c.tenant_id, _c.memory_id == found.c.id, _c.version == found.c.version)
    query = (
        select(found, tries.label("tries"))
        .outerjoin(_comparisons, same)
        .where(found.c.together > 1, or_(_c.memory_id.is_(None), ~_c.settled))
        .order_by(tries, found.c.created_at.desc(), found.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        behind = tuple_(found.c.created_at, found.c.id) < tuple_(
            literal(after.created_at, DateTime(timezone=True)), literal(after.id, Uuid)
        )
        query = query.where(or_(tries > after.tries, and_(tries == after.tries, behind)))
    return [
        Unasked(row.id, tuple(getattr(row, name) for name in _SUBJECTS), row.tries, row.created_at)
        for row in connection.execute(query)
    ]


def of_the_same(
    connection: Connection, subjects: Sequence[UUID | None], *, on: date, to: datetime | None, limit: int
) -> dict[UUID, datetime | None]:
    """Return the newest memories of exactly these subjects, up to a moment; each with when it was asked about, if so.

    One that waits for another try counts as not asked about.
    """
    own = [
        _m[name].is_(None) if one is None else _m[name] == one for name, one in zip(_SUBJECTS, subjects, strict=True)
    ]
    same = and_(_c.tenant_id == _m.tenant_id, _c.memory_id == _m.id, _c.version == _m.version, _c.settled)
    query = select(_m.id, _c.asked_at).outerjoin_from(memories_table, _comparisons, same).where(*own, *_seen(on))
    if to is not None:
        query = query.where(_m.created_at <= to)
    rows = connection.execute(query.order_by(_m.created_at.desc(), _m.id.desc()).limit(limit))
    return {row.id: row.asked_at for row in rows}


def unchanged(connection: Connection, versions: Mapping[UUID, int]) -> set[UUID]:
    """Return those of the memories that still have this version. They stay so until this transaction ends."""
    query = select(_m.id, _m.version).where(one_of(_m.id, sorted(versions))).order_by(_m.id)
    return {row.id for row in connection.execute(query.with_for_update(read=True)) if versions[row.id] == row.version}


def note(connection: Connection, scope: Scope, versions: Mapping[UUID, int], *, settled: bool) -> None:
    """Keep that memories were asked about once more as they were in these versions.

    What is `settled` is not asked about again until it is changed. What is deleted meanwhile is no part of it.
    """
    groups: dict[int, list[UUID]] = defaultdict(list)
    for memory_id, version in versions.items():
        groups[version].append(memory_id)
    columns = ["tenant_id", "memory_id", "version", "tries", "settled", "asked_at"]
    for version, memory_ids in groups.items():
        query = (
            select(
                literal(scope.tenant_id, Uuid),
                _m.id,
                _m.version,
                literal(1, SmallInteger),
                literal(settled, Boolean),
                literal(clock.now(), DateTime(timezone=True)),
            )
            .where(one_of(_m.id, memory_ids), _m.version == version)
            .with_for_update(key_share=True, read=True)
        )
        statement = insert(_comparisons).from_select(columns, query)
        new = statement.excluded
        tries = case((_c.version == new.version, func.least(_c.tries + 1, _MOST_TRIES)), else_=1)
        changed = {"version": new.version, "tries": tries, "settled": new.settled, "asked_at": new.asked_at}
        connection.execute(statement.on_conflict_do_update(constraint=_comparisons.primary_key, set_=changed))


def settle(connection: Connection, versions: Mapping[UUID, int], *, tries: int = 1) -> None:
    """Let memories rest that were asked about so often, as they were in these versions."""
    for memory_id, version in sorted(versions.items()):
        this = and_(_c.memory_id == memory_id, _c.version == version, _c.tries >= tries)
        connection.execute(update(_comparisons).where(this).values(settled=True))


def _seen(on: date) -> list[ColumnElement[bool]]:
    """What is asked about: memories that nothing supersedes and that have not expired."""
    return [is_current(None), or_(_m.expires_on.is_(None), _m.expires_on >= on)]
