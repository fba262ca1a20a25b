"""What came through a connector: the memories that carry its name, and what still waits to become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Connection, false, func, or_, select

from service.auth.tables import keys_of_connector
from service.filters.ast import Condition, Field, Op
from service.filters.tokens import Tokenizer
from service.memories.adds import payload_place
from service.memories.events import cancel_these_events, forget_all_messages, unfinished_payloads
from service.memories.stores import TenantLookup
from service.scope import Scope
from service.storage.erasers import erase_with_memories
from service.storage.erasing import Removed, deleted_with_texts, remove_memories
from service.storage.filter_sql import compile_sql
from service.storage.keyring import KeyDestroyed, Keyring
from service.storage.quarantine import quarantine_table
from service.storage.record import Record, memories_table

_m: Final[Any] = memories_table.c
_KEY: Final = "connector"
_REASON: Final = "its connector was removed meanwhile"


class ConnectorRows:
    """Finds and removes the rows of one connector of one tenant."""

    def __init__(self, keyring: Keyring, record: Record) -> None:
        self._keyring = keyring
        self._record = record

    def count(self, connection: Connection, scope: Scope, name: str) -> int:
        """Return how many memories came through the connector."""
        query = select(func.count()).select_from(memories_table).where(self._clause(scope, name))
        return int(connection.execute(query).scalar_one())

    def ids(self, connection: Connection, scope: Scope, name: str) -> list[UUID]:
        """Return the memories that came through the connector."""
        query = select(_m.id).where(self._clause(scope, name)).order_by(_m.id)
        return list(connection.execute(query).scalars())

    def remove(self, connection: Connection, scope: Scope, name: str, *, limit: int) -> Removed:
        """Remove some of its memories with all that hangs on them: fewer than `limit` when none is left."""
        clause = self._clause(scope, name)
        query = select(_m.id).where(clause).order_by(_m.id).limit(limit).with_for_update()
        return remove_memories(connection, scope, list(connection.execute(query).scalars()))

    def waiting(self, connection: Connection, scope: Scope, name: str) -> dict[UUID, UUID]:
        """Return the memories that wait for a reviewer and carry the connector's name, each with its owner."""
        q = quarantine_table.c
        query = select(q.id, q.owner_id).where(self._clause(scope, name, quarantine_table))
        return {row.id: row.owner_id for row in connection.execute(query)}

    def count_waiting(self, connection: Connection, scope: Scope, name: str) -> int:
        """Return how many memories that wait for a reviewer carry the connector's name."""
        query = select(func.count()).select_from(quarantine_table).where(self._clause(scope, name, quarantine_table))
        return int(connection.execute(query).scalar_one())

    def cancel(self, connection: Connection, scope: Scope, name: str) -> int:
        """Cancel what waits for the LLM and carries the connector's name; return how many."""
        theirs = []
        keys = set(connection.execute(keys_of_connector(name)).scalars())
        for event_id, owner_id, principal_id, payload in unfinished_payloads(connection):
            if principal_id in keys:
                theirs.append(event_id)
                continue
            try:
                cipher = self._keyring.subject(scope.tenant_id, owner_id)
            except KeyDestroyed:
                continue
            value = orjson.loads(cipher.open(payload, payload_place(scope, event_id)))
            if carries(value["metadata"], name):
                theirs.append(event_id)
        return cancel_these_events(connection, theirs, code="erased", reason=_REASON)

    def forget_messages(self, connection: Connection) -> int:
        """Remove the buffered messages of the tenant: of one that made no memory nothing tells its connector."""
        return forget_all_messages(connection)

    def remove_history(self, connection: Connection, scope: Scope, name: str) -> int:
        """Remove the history of its memories that were deleted before, where texts of deleted ones are kept."""
        theirs = self.came_through(connection, scope, name, deleted_with_texts(connection))
        return erase_with_memories(connection, theirs).get("history", 0) if theirs else 0

    def came_through(self, connection: Connection, scope: Scope, name: str, memory_ids: Iterable[UUID]) -> list[UUID]:
        """Return those of these memories whose history says that they came through the connector."""
        return [
            memory_id
            for memory_id in memory_ids
            if any(carries(step.metadata, name) for step in self._record.history(connection, scope, memory_id))
        ]

    def _clause(self, scope: Scope, name: str, table: Any = memories_table) -> ColumnElement[bool]:
        where = Condition(Field.METADATA, Op.EQ, name, (_KEY,))
        lookup = TenantLookup({}, Tokenizer(self._keyring.tenant_secret(scope.tenant_id, "filter-tokens")), None)
        # By what its metadata say, or by the key that added it, whatever its metadata say by now.
        by_key = func.coalesce(table.c.principal_id.in_(keys_of_connector(name)), false())
        return or_(compile_sql(where, lookup, table).clause, by_key)


def carries(metadata: Mapping[str, Any], name: str) -> bool:
    """Tell whether metadata name the connector, as a filter would: the elements of a list count one by one."""
    value = metadata.get(_KEY)
    return name in value if isinstance(value, list) else value == name
