"""What memories a subject had at a moment, and which of them an answer was made of, told from the trail alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from service.audit.events import ACTIVITY_OF, Activity, AuditEvent
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
    """What a request showed, to which key (None: to the service), and when."""

    principal_id: UUID | None
    at: datetime
    memory_ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """The memories of some subjects at a moment, the oldest first, `total` of them; `shown` are those of the answer.

    With `trail_from` the trail tells of nothing before that moment: what was added earlier is not among them.
    """

    at: datetime
    subject_ids: tuple[UUID, ...]
    memories: Sequence[KnownMemory]
    total: int
    shown: tuple[UUID, ...]
    trail_from: datetime | None


#: Added for these subjects and not deleted, erased or expired by then. What was deleted may be imported again under its
#: id: rows count from the last time that it came, in the order in which they were written. Surrogates are never used
#: twice, so an erased subject's memories are gone whenever they were added. A row of an import tells of memories of the
#: same subjects where it says `alike`; earlier releases joined the subjects of many. What retention hides has had its
#: last visible day the day before.
_KNOWN: Final = text("""
WITH added AS (
    SELECT DISTINCT ON (m.id) m.id, a.at, a.seq, a.subject_ids, (a.detail ->> 'expires_on')::date AS expires_on
    FROM audit a CROSS JOIN LATERAL unnest(a.result_ids) AS m (id)
    WHERE a.tenant_id = :tenant AND a.outcome = 'done' AND a.at <= :at AND a.subject_ids @> CAST(:subjects AS uuid[])
        AND (a.event IN ('memory:added', 'review:approved')
            OR a.event = 'memories:imported' AND a.detail -> 'alike' = 'true')
    ORDER BY m.id, a.seq DESC
), gone AS (
    SELECT m.id, max(a.seq) AS seq
    FROM audit a CROSS JOIN LATERAL unnest(a.target_ids) AS m (id)
    WHERE a.tenant_id = :tenant AND a.outcome = 'done' AND a.at <= :at
        AND (a.event IN ('memory:deleted', 'memories:deleted', 'batch:deleted')
            OR a.event IN ('memories:forgotten', 'erasure:continued')
            OR a.event = 'tombstone:applied' AND a.detail ->> 'kind' = 'memories:erased')
    GROUP BY m.id
), erased AS (
    SELECT coalesce(array_agg(s.id), '{}') AS ids
    FROM audit a CROSS JOIN LATERAL unnest(a.subject_ids) AS s (id)
    WHERE a.tenant_id = :tenant AND a.outcome = 'done' AND a.at <= :at
        AND (a.event IN ('entity:deleted', 'erasure:continued')
            OR a.event = 'tombstone:applied' AND a.detail ->> 'kind' = 'subject:erased')
), change AS (
    SELECT a.target_ids[1] AS id, a.at, a.seq, a.detail -> 'changed' @> '["expires_on"]' AS of_expiry,
        (a.detail ->> 'expires_on')::date AS expires_on
    FROM audit a
    WHERE a.tenant_id = :tenant AND a.event IN ('memory:updated', 'batch:updated') AND a.outcome = 'done'
        AND a.at <= :at AND a.subject_ids @> CAST(:subjects AS uuid[])
    UNION ALL
    SELECT m.id, a.at, a.seq, true, (a.at AT TIME ZONE 'UTC')::date - 1
    FROM audit a CROSS JOIN LATERAL unnest(a.result_ids) AS m (id)
    WHERE a.tenant_id = :tenant AND a.event = 'memories:forgotten' AND a.outcome = 'done' AND a.at <= :at
), changed AS (
    SELECT change.id, max(change.at) AS at, coalesce(bool_or(change.of_expiry), false) AS of_expiry,
        (array_agg(change.expires_on ORDER BY change.seq DESC) FILTER (WHERE change.of_expiry))[1] AS expires_on
    FROM change JOIN added ON added.id = change.id AND change.seq > added.seq
    GROUP BY change.id
)
SELECT added.id, added.at AS added_at, changed.at AS changed_at,
    CASE WHEN changed.of_expiry THEN changed.expires_on ELSE added.expires_on END AS expires_on
FROM added LEFT JOIN changed USING (id) LEFT JOIN gone ON gone.id = added.id AND gone.seq > added.seq CROSS JOIN erased
WHERE gone.id IS NULL AND NOT added.subject_ids && erased.ids
ORDER BY added.at, added.id
""")
_SHOWN: Final = text("""
SELECT a.principal_id, max(a.at) AS at, array_agg(m.id ORDER BY a.at, m.place) FILTER (WHERE m.id IS NOT NULL) AS ids
FROM audit a LEFT JOIN LATERAL unnest(
    CASE WHEN a.event IN ('memory:read', 'history:read', 'review:read') THEN a.target_ids ELSE a.result_ids END
) WITH ORDINALITY AS m (id, place) ON true
WHERE a.tenant_id = :tenant AND a.request_id = :request AND a.outcome = 'done' AND a.event = ANY (:events)
    AND (CAST(:principal AS uuid) IS NULL OR a.principal_id = CAST(:principal AS uuid))
GROUP BY a.principal_id
ORDER BY a.principal_id
""")
#: By these settings and subjects reach somebody, and no memories.
_OF_NO_MEMORIES: Final = {AuditEvent.PROJECT_READ, AuditEvent.ENTITIES_LISTED}
_READS: Final = sorted(
    event.value for event, activity in ACTIVITY_OF.items() if activity is Activity.READ and event not in _OF_NO_MEMORIES
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


def shown_by(
    connection: Connection, scope: Scope, request_id: str, *, principal_id: UUID | None = None
) -> Sequence[Answer]:
    """Return which memories requests of this id showed, an answer for each principal that sent it, or for one only.

    Callers choose the id: another key of the tenant may have sent the same one.
    """
    values = {"tenant": scope.tenant_id, "request": request_id, "events": _READS, "principal": principal_id}
    rows = connection.execute(_SHOWN, values)
    return [Answer(row.principal_id, row.at, tuple(dict.fromkeys(row.ids or ()))) for row in rows]
