"""Looks for what is left after an erasure: rows by surrogate in every table, points of the index, the key."""

from __future__ import annotations

from service import clock
from service.memories.changing import ModelChange
from service.memories.stores import Stores
from service.retention.connectors import ConnectorRows
from service.retention.ledger import Erasure, ErasureKind
from service.retention.receipts import DESTROYED, NONE_OF_ITS_OWN, Checked
from service.scope import Scope
from service.storage.erasers import left_of_tenant, references, undeclared
from service.storage.keyring import KeyDestroyed, KeyMissing


class Leftovers:
    """Looks, and changes nothing."""

    def __init__(self, stores: Stores, connectors: ConnectorRows, change: ModelChange) -> None:
        self._stores = stores
        self._connectors = connectors
        self._change = change

    def look(self, scope: Scope, erasure: Erasure) -> Checked:
        """Return what is left of an erasure.

        Raises:
            IndexUnavailable: when it cannot be told of an index.
            RuntimeError: when the database has a table of which nobody said how its rows leave.
        """
        with self._stores.database.transaction(scope) as connection:
            if unknown := undeclared(connection):
                raise RuntimeError(f"tables without an eraser: {', '.join(unknown)}")
            if erasure.subject_id is not None:
                tables = references(connection, [erasure.subject_id])
            elif erasure.kind is ErasureKind.TENANT:
                tables = left_of_tenant(connection, scope.tenant_id)
            else:
                name = erasure.connector or ""
                tables = {
                    "memories": self._connectors.count(connection, scope, name),
                    "quarantine": self._connectors.count_waiting(connection, scope, name),
                }
        return Checked(clock.now(), tables, self._points(scope, erasure), self._key(scope, erasure))

    def _points(self, scope: Scope, erasure: Erasure) -> int:
        if erasure.kind is ErasureKind.CONNECTOR:
            # Its points are those of its memories, and a memory that is gone was taken out of the index before this.
            return 0
        # In this order: one that takes over in between is counted twice, and not passed over.
        beside = self._change.count_beside(scope, erasure.subject_id)
        return beside + self._stores.index.of(scope).count(subject=erasure.subject_id)

    def _key(self, scope: Scope, erasure: Erasure) -> str:
        if erasure.subject_id is None and erasure.kind is not ErasureKind.TENANT:
            return NONE_OF_ITS_OWN
        try:
            # Another process may have destroyed it, or not: what this one remembers is no evidence.
            self._stores.keyring.check(scope.tenant_id, erasure.subject_id)
        except KeyDestroyed:
            return DESTROYED
        except KeyMissing:
            return "missing"
        return "there"
