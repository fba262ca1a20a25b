"""Between the wire and the records of erasures, pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from service.api.admin.erasure_schemas import ErasureIn
from service.errors import InvalidInput
from service.retention.ledger import Erasure, ErasureKind, Target


def target_of(body: ErasureIn) -> Target:
    """Return what a body asks to erase.

    Raises:
        InvalidInput: when it names nothing, or more than one thing.
    """
    given = {
        ErasureKind.USER: body.user_id,
        ErasureKind.AGENT: body.agent_id,
        ErasureKind.APP: body.app_id,
        ErasureKind.RUN: body.run_id,
        ErasureKind.CONNECTOR: body.connector,
    }
    named = [Target(kind, name) for kind, name in given.items() if name is not None]
    if len(named) != 1:
        raise InvalidInput("name exactly one of user_id, agent_id, app_id, run_id and connector; nothing was erased")
    return named[0]


def erasure_out(erasure: Erasure) -> dict[str, Any]:
    """Return an erasure as it is told."""
    return {
        "id": str(erasure.id),
        "kind": erasure.kind.value,
        "status": erasure.status.value,
        "subject_id": None if erasure.subject_id is None else str(erasure.subject_id),
        "connector": erasure.connector,
        "due_at": _time(erasure.due_at),
        "blocked_by": erasure.blocked_by,
        "requested_at": _time(erasure.requested_at),
        "begun_at": _time(erasure.begun_at),
        "rows_removed_at": _time(erasure.removed_at),
        "completed_at": _time(erasure.completed_at),
        "removed": dict(erasure.removed),
        "receipt": erasure.receipt,
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
