"""Makes a memory a member of every live hold that covers it, in the transaction that writes it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Connection, DateTime, Uuid, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert

from service import clock
from service.errors import LegalHold
from service.filters.ast import Node
from service.holds.guard import is_live, wait_for_placing
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
        for hold in _to_come(connection, scope):
            add_members(connection, scope, hold.id, [one.id for one in memories if self._covers(scope, hold, one)])

    def refusals(
        self, connection: Connection, scope: Scope, memories: Callable[[], Iterable[StoredMemory]]
    ) -> dict[UUID, LegalHold]:
        """Return, for those of some memories that are not in the record and would join a live hold there, its refusal.

        `memories` is called only where a hold could cover any. No hold can be placed until this transaction ends.
        """
        wait_for_placing(connection)
        holds = _to_come(connection, scope)
        found: dict[UUID, LegalHold] = {}
        for memory in memories() if holds else ():
            if covering := [hold for hold in holds if self._covers(scope, hold, memory)]:
                found[memory.id] = LegalHold([hold.name for hold in covering], hold_ids=[hold.id for hold in covering])
        return found

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


def _to_come(connection: Connection, scope: Scope) -> list[Any]:
    """Return the live holds that cover what is written from now on, by name: by subjects or by a filter."""
    query = select(_holds.c.id, _holds.c.name, _holds.c.subject_ids, _holds.c.filter).where(
        _holds.c.tenant_id == scope.tenant_id,
        or_(_holds.c.subject_ids.is_not(None), _holds.c.filter.is_not(None)),
        is_live(),
    )
    return list(connection.execute(query.order_by(_holds.c.name)))


def add_members(connection: Connection, scope: Scope, hold_id: UUID, memory_ids: Sequence[UUID]) -> None:
    """Make memories members of a hold; those that are already stay."""
    if not memory_ids:
        return
    # One statement however many they are: they may be all that a tenant has.
    ids = func.unnest(literal(list(memory_ids), ARRAY(Uuid)))
    moment = literal(clock.now(), DateTime(timezone=True))
    rows = select(literal(scope.tenant_id, Uuid), literal(hold_id, Uuid), ids, moment)
    statement = insert(_members).from_select(["tenant_id", "hold_id", "memory_id", "joined_at"], rows)
    connection.execute(statement.on_conflict_do_nothing())


def filter_place(scope: Scope, hold_id: UUID) -> Place:
    """Return the place that a hold's filter is sealed for."""
    return Place(scope.tenant_id, "holds", hold_id, "filter")
