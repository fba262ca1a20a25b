"""When memories were last shown to anybody, told from the trail, so that no read has to write that down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from service.audit.events import ACTIVITY_OF, Activity
from service.scope import Scope

_READS: Final = [event.value for event, activity in ACTIVITY_OF.items() if activity is Activity.READ]
_USES: Final = text("""
SELECT m.id, max(a.at) AS at
FROM audit a CROSS JOIN LATERAL unnest(
    CASE WHEN a.event IN ('memory:read', 'history:read') THEN a.target_ids ELSE a.result_ids END
) AS m (id)
WHERE a.tenant_id = :tenant AND a.event = ANY(:events) AND a.outcome = 'done' AND a.at >= :since
    AND (CAST(:ids AS uuid[]) IS NULL OR m.id = ANY(CAST(:ids AS uuid[])))
GROUP BY m.id
""")
_FLOOR: Final = text("""
SELECT min(at) FROM audit
WHERE tenant_id = :tenant AND EXISTS (SELECT 1 FROM audit_drops d WHERE d.tenant_id = :tenant)
""")


def last_uses(
    connection: Connection, scope: Scope, *, since: datetime, ids: Sequence[UUID] | None = None
) -> dict[UUID, datetime]:
    """Return when memories were last shown, of those that were since a moment."""
    values = {"tenant": scope.tenant_id, "events": _READS, "since": since, "ids": None if ids is None else list(ids)}
    return {row.id: row.at for row in connection.execute(_USES, values)}


def trail_reaches_back_to(connection: Connection, scope: Scope) -> datetime | None:
    """Return the oldest moment that a shortened trail still tells of, or None when it is whole."""
    found: datetime | None = connection.execute(_FLOOR, {"tenant": scope.tenant_id}).scalar()
    return found
