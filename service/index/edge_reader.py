"""Asks one shard for one tenant: questions go to the shard's process, what was found comes back as ours (`Reader`)."""

from __future__ import annotations

from uuid import UUID

from service.index.edge_shard import Call
from service.index.points import identity
from service.index.questions import Finding, Search
from service.index.selection import Selection
from service.scope import TenantId


class EdgeReader:
    """See `Reader`."""

    def __init__(self, call: Call, tenant_id: TenantId) -> None:
        self._call = call
        self._tenant = tenant_id

    def find(self, search: Search) -> Finding:
        """See `Reader`."""
        finding: Finding = self._call("find", self._tenant, search)
        return finding

    def scroll(self, where: Selection, *, limit: int, after: UUID | None = None) -> tuple[dict[UUID, int], UUID | None]:
        """See `Reader`."""
        payloads, cursor = self._call("scroll", where, limit, after)
        return dict(identity(payload) for payload in payloads), cursor

    def count(self, where: Selection) -> int:
        """See `Reader`."""
        found: int = self._call("count", where)
        return found
