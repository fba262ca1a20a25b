"""The journal of revoked keys: what ends with its connector or its user stays ended in a restored database as well."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, Connection

from service.auth.tables import keys_table, of_connector, of_user_alone
from service.scope import Scope
from service.storage.tombstones import Tombstone, TombstoneKind, Tombstones, tombstone_id


def journal_end(connection: Connection, tombstones: Tombstones, scope: Scope, key_id: UUID) -> Tombstone:
    """Write into the journal that a key ends, in the transaction that revokes it."""
    kind = TombstoneKind.KEY_REVOKED
    once = tombstone_id(kind, scope.tenant_id, key_id)
    tombstone = tombstones.append(kind, scope.tenant_id, [key_id], tombstone=once)
    tombstones.note(connection, tombstone)
    return tombstone


def journal_ends_with_connector(connection: Connection, tombstones: Tombstones, scope: Scope, connector: str) -> None:
    """Write into the journal that the keys of a connector end. Call it before the eraser of keys, which revokes them.

    A database of before may hold such a key, and nothing but this line tells it that its connector was removed.
    """
    _journal(connection, tombstones, scope, of_connector(connector))


def journal_ends_with_user(connection: Connection, tombstones: Tombstones, scope: Scope, subject_id: UUID) -> None:
    """Write into the journal that the keys bound to this user alone end, before the eraser of keys revokes them."""
    _journal(connection, tombstones, scope, of_user_alone(subject_id))


def _journal(connection: Connection, tombstones: Tombstones, scope: Scope, theirs: ColumnElement[bool]) -> None:
    live = keys_table.select().with_only_columns(keys_table.c.id).where(theirs, keys_table.c.revoked_at.is_(None))
    locked = live.order_by(keys_table.c.id).with_for_update()
    ended = set[UUID]()
    # A key that mints another one keeps its own row until that one is there. So none is missed once a look, which waits
    # for all of them, finds none that is new.
    while fresh := [key_id for key_id in connection.execute(locked).scalars() if key_id not in ended]:
        for key_id in fresh:
            journal_end(connection, tombstones, scope, key_id)
        ended.update(fresh)
