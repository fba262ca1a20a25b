"""Between the wire and the records of legal holds, pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from service.api.admin.hold_schemas import HoldIn
from service.errors import InvalidInput, MalformedId
from service.filters.parse import parse_filter
from service.filters.render import as_wire
from service.holds.register import HoldState, Signature
from service.records import SubjectNames
from service.retention.holds import Hold, NewHold


def new_hold(body: HoldIn) -> NewHold:
    """Return the hold that a body asks for.

    Raises:
        InvalidInput: for a filter that cannot be understood.
        MalformedId: for what is no memory's id.
    """
    return NewHold(
        name=body.name,
        reason=body.reason,
        subjects=SubjectNames(body.user_id, body.agent_id, body.app_id, body.run_id),
        where=None if body.filters is None else parse_filter(body.filters),
        memory_ids=_ids(body.memory_ids or ()),
    )


def state_of(value: str | None) -> HoldState | None:
    """Return the state to list by, None for all.

    Raises:
        InvalidInput: for another word.
    """
    if value in (None, "all"):
        return None
    if value not in tuple(HoldState):
        raise InvalidInput("state: must be live, released or all")
    return HoldState(value)


def hold_out(hold: Hold) -> dict[str, Any]:
    """Return a hold as it is told."""
    stored = hold.stored
    return {
        "id": str(stored.id),
        "name": stored.name,
        "state": stored.state.value,
        "covers": hold.covers.value,
        "user_id": hold.subjects.user_id,
        "agent_id": hold.subjects.agent_id,
        "app_id": hold.subjects.app_id,
        "run_id": hold.subjects.run_id,
        "filters": None if hold.where is None else as_wire(hold.where),
        "reason": stored.reason,
        "members": stored.members,
        "placed_at": stored.placed_at.isoformat(),
        "placed_by": _signature(stored.placed),
        "released_at": stored.released_at.isoformat() if stored.released_at else None,
        "released_by": _signature(stored.released) if stored.released else None,
        "release_reason": stored.release_reason,
    }


def member_out(member: tuple[UUID, datetime]) -> dict[str, Any]:
    """Return a member of a hold."""
    return {"id": str(member[0]), "joined_at": member[1].isoformat()}


def _signature(signature: Signature) -> dict[str, str]:
    return {
        "principal_id": str(signature.principal_id),
        "kind": signature.kind.value,
        "person_id": str(signature.person_id),
    }


def _ids(texts: Sequence[str]) -> list[UUID]:
    found = []
    for number, text in enumerate(texts):
        try:
            found.append(UUID(text))
        except ValueError:
            raise MalformedId(f"memory_ids[{number}]: there is no such memory; nothing was placed") from None
    return list(dict.fromkeys(found))
