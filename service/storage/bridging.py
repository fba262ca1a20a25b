"""Keeps what is superseded superseded when a memory between it and what is so now is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import ARRAY, Connection, DateTime, Uuid, bindparam, text

from service import clock

# Of two kinds the one that comes first in the alphabet says more: a fact that changed on the way has changed.
_BRIDGE: Final = text("""
    WITH RECURSIVE walk AS (
        SELECT tenant_id, older_id, newer_id, kind FROM supersessions
         WHERE newer_id = ANY (:going) AND older_id <> ALL (:going) AND state = 'linked'
        UNION
        SELECT walk.tenant_id, walk.older_id, link.newer_id, least(walk.kind, link.kind)
          FROM walk JOIN supersessions link
            ON link.tenant_id = walk.tenant_id AND link.older_id = walk.newer_id AND link.state = 'linked'
         WHERE walk.newer_id = ANY (:going)
    ), ends AS (
        SELECT tenant_id, older_id, newer_id, min(kind) AS kind FROM walk
         WHERE newer_id <> ALL (:going) GROUP BY tenant_id, older_id, newer_id
    )
    INSERT INTO supersessions (tenant_id, older_id, newer_id, kind, state, created_at)
    SELECT ends.tenant_id, ends.older_id, ends.newer_id, ends.kind, 'linked', :moment
      FROM ends
      JOIN memories older ON older.tenant_id = ends.tenant_id AND older.id = ends.older_id
      JOIN memories newer ON newer.tenant_id = ends.tenant_id AND newer.id = ends.newer_id
       FOR KEY SHARE OF older, newer SKIP LOCKED
    ON CONFLICT (tenant_id, older_id, newer_id) DO UPDATE SET kind = excluded.kind, state = excluded.state
     WHERE supersessions.state = 'proposed'
""").bindparams(bindparam("going", type_=ARRAY(Uuid)), bindparam("moment", type_=DateTime(timezone=True)))


def bridge(connection: Connection, memory_ids: Sequence[UUID]) -> None:
    """Link what memories that are about to be deleted supersede to what supersedes them.

    The caller has locked these. What somebody else deletes at the same time is no end of such a link: to wait for that
    could be to wait for each other. What was dismissed stays so.
    """
    connection.execute(_BRIDGE, {"going": list(memory_ids), "moment": clock.now()})
