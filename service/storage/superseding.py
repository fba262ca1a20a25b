"""Links from an older memory to the newer one that says what is so now. Neither is changed: a link can go again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    DateTime,
    Uuid,
    and_,
    column,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from service import clock
from service.scope import Scope
from service.storage.record import memories_table, one_of
from service.storage.tables import SupersessionRow

_links: Final[Any] = SupersessionRow.__table__  # type: ignore[attr-defined]
_m: Final[Any] = memories_table.c
#: Why a memory supersedes another: a fact changed, or is said once more.
KINDS: Final = frozenset({"changed", "same"})
_LINKED: Final = _links.c.state == "linked"
#: What goes when the older one is said again: links, and proposals of a change, which came before that.
_OVER: Final = or_(_LINKED, and_(_links.c.state == "proposed", _links.c.kind == "changed"))
_SUBJECTS: Final = ("user_id", "agent_id", "app_id", "run_id")


@dataclass(frozen=True, slots=True)
class Link:
    """From an older memory to a newer one, of a fact that changed (`changed`) or is said once more (`same`)."""

    older_id: UUID
    newer_id: UUID
    kind: str = "same"


def supersede(
    connection: Connection,
    scope: Scope,
    links: Mapping[UUID, Iterable[UUID]],
    *,
    kind: str = "changed",
    anew: bool = True,
    said: Mapping[UUID, datetime] | None = None,
) -> dict[UUID, list[UUID]]:
    """Link older memories to newer ones, by the newer one's id; return the links that hold, by the same.

    Only memories of the same user, agent, app and run are linked, so that whoever finds the older one finds the newer
    one too. What says something anew is current itself, whatever superseded it before. Not `anew` is what was said
    before and is linked now: then what supersedes the newer one stays. No link is made that closes a circle.

    `said` tells when the newer ones were said (of each that is linked, or of none): what was said or changed later than
    that is not superseded, nor is a newer one current again whose superseding one was said later.
    """
    wanted = {newer: sorted(set(older) - {newer}) for newer, older in links.items()}
    wanted = {newer: older for newer, older in wanted.items() if older}
    if anew and said is not None:
        restate_as_said(connection, {newer: said[newer] for newer in wanted})
    elif anew:
        restate(connection, wanted)
    made: dict[UUID, list[UUID]] = {}
    moment = literal(clock.now(), DateTime(timezone=True))
    new = memories_table.alias("newer")
    for newer, older in wanted.items():
        above = _reached(connection, newer, _links.c.older_id, _links.c.newer_id)
        older = [one for one in older if one not in above]
        same = and_(*(_m[name].is_not_distinct_from(new.c[name]) for name in _SUBJECTS))
        stood = true() if said is None else func.greatest(_m.created_at, _m.updated_at) <= said[newer]
        query = (
            select(literal(scope.tenant_id, Uuid), _m.id, new.c.id, literal(kind), literal("linked"), moment)
            .join(new, and_(new.c.tenant_id == _m.tenant_id, new.c.id == newer))
            .where(one_of(_m.id, older), same, stood)
            # One that is deleted meanwhile is no part of it.
            .with_for_update(key_share=True, read=True)
        )
        columns = ["tenant_id", "older_id", "newer_id", "kind", "state", "created_at"]
        statement = insert(_links).from_select(columns, query)
        there = {"kind": statement.excluded.kind, "state": statement.excluded.state}
        connection.execute(statement.on_conflict_do_update(constraint=_links.primary_key, set_=there))
        found = select(_links.c.older_id).where(_links.c.newer_id == newer, one_of(_links.c.older_id, older), _LINKED)
        if linked := list(connection.execute(found).scalars()):
            made[newer] = linked
    return made


def links_of(connection: Connection, memory_ids: Sequence[UUID]) -> list[Link]:
    """Return the links that hold, to and from any of the memories."""
    query = select(_links.c.older_id, _links.c.newer_id, _links.c.kind).where(
        or_(one_of(_links.c.older_id, memory_ids), one_of(_links.c.newer_id, memory_ids)), _LINKED
    )
    rows = connection.execute(query.order_by(_links.c.older_id, _links.c.newer_id))
    return [Link(row.older_id, row.newer_id, row.kind) for row in rows]


def restate(connection: Connection, memory_ids: Iterable[UUID]) -> int:
    """Let memories be current that were said anew; return how many links went."""
    ids = list(memory_ids)
    if not ids:
        return 0
    return int(connection.execute(delete(_links).where(one_of(_links.c.older_id, ids), _LINKED)).rowcount)


def restate_as_said(connection: Connection, said: Mapping[UUID, datetime]) -> None:
    """Let memories be current that were said anew, each at its time, unless what supersedes them was said later.

    So it is with what was proposed to have changed them: that is forgotten.
    """
    if not said:
        return
    ids, times = literal(list(said), ARRAY(Uuid)), literal(list(said.values()), ARRAY(DateTime(timezone=True)))
    again = func.unnest(ids, times).table_valued(column("id", Uuid), column("at", DateTime(timezone=True)))
    again = again.render_derived()
    newer = memories_table.alias("newer")
    # A time to come is somebody's word: what came in by now was said by now.
    was = func.least(newer.c.created_at, newer.c.ingested_at)
    earlier = exists().where(
        again.c.id == _links.c.older_id,
        newer.c.tenant_id == _links.c.tenant_id,
        newer.c.id == _links.c.newer_id,
        was <= again.c.at,
    )
    connection.execute(delete(_links).where(one_of(_links.c.older_id, list(said)), _OVER, earlier))


def reworded(connection: Connection, memory_ids: Iterable[UUID]) -> None:
    """Let memories be current whose text was changed by hand, and forget what was proposed because of the old one.

    The caller has locked the memories. What they supersede themselves stays superseded.
    """
    ids = list(memory_ids)
    if not ids:
        return
    restate(connection, ids)
    either = or_(one_of(_links.c.older_id, ids), one_of(_links.c.newer_id, ids))
    connection.execute(delete(_links).where(either, _links.c.state == "proposed"))


def propose(connection: Connection, scope: Scope, links: Sequence[Link]) -> list[Link]:
    """Keep what is proposed to be linked; return those that are new.

    What is linked, proposed or dismissed already stays so, and what is superseded is no part of it. The caller has
    locked the memories.
    """
    now = current(connection, [one for link in links for one in (link.older_id, link.newer_id)], None)
    rows = [
        {
            "tenant_id": scope.tenant_id,
            "older_id": link.older_id,
            "newer_id": link.newer_id,
            "kind": link.kind,
            "state": "proposed",
            "created_at": clock.now(),
        }
        for link in links
        if link.older_id in now and link.newer_id in now
    ]
    if not rows:
        return []
    made = insert(_links).on_conflict_do_nothing().returning(_links.c.older_id, _links.c.newer_id, _links.c.kind)
    return [Link(row.older_id, row.newer_id, row.kind) for row in connection.execute(made.values(rows))]


def proposals(connection: Connection, older_ids: Collection[UUID] | None = None, *, lock: bool = False) -> list[Link]:
    """Return what is proposed and not decided on, of these older memories or of all, the oldest first.

    With `lock` its memories stay as they are until this transaction ends.
    """
    query = select(_links.c.older_id, _links.c.newer_id, _links.c.kind).where(_links.c.state == "proposed")
    if older_ids is not None:
        query = query.where(one_of(_links.c.older_id, list(older_ids)))
    query = query.order_by(_links.c.created_at, _links.c.older_id, _links.c.newer_id)
    found = [Link(row.older_id, row.newer_id, row.kind) for row in connection.execute(query)]
    if lock and found:
        ends = {one for link in found for one in (link.older_id, link.newer_id)}
        locked = select(_m.id).where(one_of(_m.id, list(ends))).order_by(_m.id)
        connection.execute(locked.with_for_update(key_share=True, read=True))
        # What was reworded until the lock was had is not proposed any more.
        still = {(row.older_id, row.newer_id) for row in connection.execute(query)}
        found = [link for link in found if (link.older_id, link.newer_id) in still]
    return found


def paired(connection: Connection, memory_ids: Sequence[UUID]) -> dict[UUID, set[UUID]]:
    """Return, by the memories that have any, the others that they are linked, proposed or dismissed with."""
    query = select(_links.c.older_id, _links.c.newer_id)
    either = or_(one_of(_links.c.older_id, memory_ids), one_of(_links.c.newer_id, memory_ids))
    found: dict[UUID, set[UUID]] = defaultdict(set)
    for older_id, newer_id in connection.execute(query.where(either)):
        found[older_id].add(newer_id)
        found[newer_id].add(older_id)
    return found


def dismiss(connection: Connection, links: Sequence[Link]) -> None:
    """Let what is proposed never be proposed again."""
    for link in links:
        this = and_(_links.c.older_id == link.older_id, _links.c.newer_id == link.newer_id)
        connection.execute(update(_links).where(this, _links.c.state == "proposed").values(state="dismissed"))


def superseded_by(connection: Connection, memory_id: UUID) -> set[UUID]:
    """Return what a memory supersedes, through all generations."""
    return _reached(connection, memory_id, _links.c.newer_id, _links.c.older_id) - {memory_id}


def _reached(connection: Connection, memory_id: UUID, near: Any, far: Any) -> set[UUID]:
    """Return what links lead to from a memory, from their near end to their far one, through all generations."""
    walk = select(far.label("id")).where(near == memory_id, _LINKED).cte("walk", recursive=True)
    further = select(far).join(walk, near == walk.c.id).where(_LINKED)
    return set(connection.execute(select(walk.union(further).c.id)).scalars())


def is_current(on: date | None) -> ColumnElement[bool]:
    """Return the condition that no memory supersedes a row of the record, or none that can be seen on that day.

    What has expired is no longer what is so, but what supersedes it still supersedes what is older too.
    """
    newest = exists().where(_links.c.tenant_id == _m.tenant_id, _links.c.older_id == _m.id, _LINKED)
    if on is None:
        return ~newest
    direct = select(_links.c.tenant_id, _links.c.newer_id).where(
        _links.c.tenant_id == _m.tenant_id, _links.c.older_id == _m.id, _LINKED
    )
    walk = direct.correlate(memories_table).cte("walk", recursive=True, nesting=True)
    next_ = and_(_links.c.tenant_id == walk.c.tenant_id, _links.c.older_id == walk.c.newer_id, _LINKED)
    reached = walk.union(select(walk.c.tenant_id, _links.c.newer_id).join(_links, next_))
    newer = memories_table.alias("newer")
    itself = and_(newer.c.tenant_id == reached.c.tenant_id, newer.c.id == reached.c.newer_id)
    visible = or_(newer.c.expires_on.is_(None), newer.c.expires_on >= on)
    seen = select(reached.c.newer_id).join(newer, itself).where(visible).correlate(memories_table)
    # Asked of few rows, so that a list of all is no walk from each.
    return or_(~newest, ~seen.exists())


def current(connection: Connection, memory_ids: Sequence[UUID], on: date | None) -> set[UUID]:
    """Return those of the memories that are current on a day; `on` None counts what has expired too."""
    query = select(_m.id).where(one_of(_m.id, memory_ids), is_current(on))
    return set(connection.execute(query).scalars())
