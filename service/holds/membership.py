"""Makes a memory a member of every live hold that covers it, in the transaction that writes it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, or_, select
from sqlalchemy.dialects.postgresql import insert

from service import clock
from service.filters.ast import Node
from service.holds.guard import is_live
from service.holds.tables import HoldMemberRow, HoldRow
from service.scope import Scope, TenantId
from service.storage.encryption import Place
from service.storage.kept_filters import meets, open_filter
from service.storage.keyring import Keyring
from service.storage.stored import StoredMemory

_holds: Final[Any] = HoldRow.__table__  # type: ignore[attr-defined]
_members: Final[Any] = HoldMemberRow.__table__  # type: ignore[attr-defined]
_CACHED: Final = 1000


class Membership:
    """Who joins which hold. A member stays one: what is held does not change."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._lock = threading.Lock()
        # A hold's filter never changes.
        self._filters: OrderedDict[tuple[TenantId, UUID], Node] = OrderedDict()

    def written(self, connection: Connection, scope: Scope, memories: Sequence[StoredMemory]) -> None:
        """Join memories that were just inserted or changed.

        The statement that wrote them shares the lock that a hold is placed under, so that every hold is seen here that
        did not see them.
        """
        query = select(_holds.c.id, _holds.c.subject_ids, _holds.c.filter).where(
            _holds.c.tenant_id == scope.tenant_id,
            or_(_holds.c.subject_ids.is_not(None), _holds.c.filter.is_not(None)),
            is_live(),
        )
        for hold in connection.execute(query):
            add_members(connection, scope, hold.id, [one.id for one in memories if self._covers(scope, hold, one)])

    def _covers(self, scope: Scope, hold: Any, memory: StoredMemory) -> bool:
        if hold.subject_ids is not None:
            return set(hold.subject_ids) <= set(memory.subject_ids())
        return meets(self._filter(scope, hold), memory)

    def _filter(self, scope: Scope, hold: Any) -> Node:
        known = (scope.tenant_id, hold.id)
        with self._lock:
            if (node := self._filters.get(known)) is not None:
                self._filters.move_to_end(known)
                return node
        node = open_filter(self._keyring, scope, hold.filter, filter_place(scope, hold.id))
        with self._lock:
            self._filters[known] = node
            while len(self._filters) > _CACHED:
                self._filters.popitem(last=False)
        return node


def add_members(connection: Connection, scope: Scope, hold_id: UUID, memory_ids: Sequence[UUID]) -> None:
    """Make memories members of a hold; those that are already stay."""
    if not memory_ids:
        return
    moment = clock.now()
    rows = [
        {"tenant_id": scope.tenant_id, "hold_id": hold_id, "memory_id": one, "joined_at": moment} for one in memory_ids
    ]
    connection.execute(insert(_members).on_conflict_do_nothing(), rows)


def filter_place(scope: Scope, hold_id: UUID) -> Place:
    """Return the place that a hold's filter is sealed for."""
    return Place(scope.tenant_id, "holds", hold_id, "filter")
