"""What memories a subject had at a moment, and which of them an answer was made of, told from the trail alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from service.audit.events import ACTIVITY_OF, Activity
from service.scope import Scope


@dataclass(frozen=True, slots=True)
class KnownMemory:
    """A memory that existed at the moment: when it was added and last changed, and its last visible day."""

    memory_id: UUID
    added_at: datetime
    changed_at: datetime | None
    expires_on: date | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request showed, and when."""

    at: datetime
    memory_ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """The memories of some subjects at a moment, the oldest first, `total` of them; `shown` are those of the answer."""

    at: datetime
    subject_ids: tuple[UUID, ...]
    memories: Sequence[KnownMemory]
    total: int
    shown: tuple[UUID, ...]


#: Added for these subjects and not deleted, erased or expired by then. Surrogates are never used twice, so an erased
#: subject's memories are gone whenever they were added.
_KNOWN: Final = text("""
WITH added AS (
    SELECT DISTINCT ON (m.id) m.id, a.at, a.subject_ids, (a.detail ->> 'expires_on')::date AS expires_on
    FROM audit a CROSS JOIN LATERAL unnest(a.result_ids) AS m (id)
    WHERE a.tenant_id = :tenant AND a.event IN ('memory:added', 'review:approved') AND a.outcome = 'done'
        AND a.at <= :at AND a.subject_ids @> CAST(:subjects AS uuid[])
    ORDER BY m.id, a.at
), gone AS (
    SELECT DISTINCT m.id
    FROM audit a CROSS JOIN LATERAL unnest(a.target_ids) AS m (id)
    WHERE a.tenant_id = :tenant
        AND a.event IN ('memory:deleted', 'memories:deleted', 'memories:forgotten', 'erasure:continued')
        AND a.outcome = 'done' AND a.at <= :at
), erased AS (
    SELECT coalesce(array_agg(s.id), '{}') AS ids
    FROM audit a CROSS JOIN LATERAL unnest(a.subject_ids) AS s (id)
    WHERE a.tenant_id = :tenant AND a.outcome = 'done' AND a.at <= :at
        AND (a.event IN ('entity:deleted', 'erasure:continued')
            OR a.event = 'tombstone:applied' AND a.detail ->> 'kind' = 'subject:erased')
), changed AS (
    SELECT a.target_ids[1] AS id, max(a.at) AS at,
        (array_agg(a.detail ORDER BY a.at DESC) FILTER (WHERE a.detail -> 'changed' @> '["expires_on"]'))[1] AS expiry
    FROM audit a
    WHERE a.tenant_id = :tenant AND a.event = 'memory:updated' AND a.outcome = 'done' AND a.at <= :at
        AND a.subject_ids @> CAST(:subjects AS uuid[])
    GROUP BY a.target_ids[1]
)
SELECT added.id, added.at AS added_at, changed.at AS changed_at,
    CASE WHEN changed.expiry IS NULL THEN added.expires_on
        ELSE (changed.expiry ->> 'expires_on')::date END AS expires_on
FROM added LEFT JOIN changed USING (id) LEFT JOIN gone USING (id) CROSS JOIN erased
WHERE gone.id IS NULL AND NOT added.subject_ids && erased.ids
ORDER BY added.at, added.id
""")
_SHOWN: Final = text("""
SELECT max(a.at) AS at, array_agg(m.id ORDER BY a.at, m.place) FILTER (WHERE m.id IS NOT NULL) AS ids
FROM audit a LEFT JOIN LATERAL unnest(
    CASE WHEN a.event IN ('memory:read', 'history:read') THEN a.target_ids ELSE a.result_ids END
) WITH ORDINALITY AS m (id, place) ON true
WHERE a.tenant_id = :tenant AND a.request_id = :request AND a.outcome = 'done' AND a.event = ANY (:events)
""")
_READS: Final = sorted(
    event.value
    for event, activity in ACTIVITY_OF.items()
    if activity is Activity.READ and event.value.split(":")[0] in ("memory", "history", "event", "events")
)


def known_memories(connection: Connection, scope: Scope, subjects: Sequence[UUID], at: datetime) -> list[KnownMemory]:
    """Return the memories of all these subjects together that existed at a moment, the oldest first."""
    parameters = {"tenant": scope.tenant_id, "subjects": list(subjects), "at": at}
    day = at.date()
    return [
        KnownMemory(row.id, row.added_at, row.changed_at, row.expires_on)
        for row in connection.execute(_KNOWN, parameters)
        if row.expires_on is None or row.expires_on >= day
    ]


def shown_by(connection: Connection, scope: Scope, request_id: str) -> Answer | None:
    """Return which memories a request showed, or None when the trail knows of no answer to it."""
    row = connection.execute(_SHOWN, {"tenant": scope.tenant_id, "request": request_id, "events": _READS}).one()
    return None if row.at is None else Answer(row.at, tuple(dict.fromkeys(row.ids or ())))
