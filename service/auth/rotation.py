"""Keys that change: rotated, so that an old and a new secret overlap, and given other permissions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, select, update

from service import clock
from service.audit.details import KeyChanged, KeyRotated, Reason
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.auth.grants import Grant, check_grant
from service.auth.keys import Keys, MintedKey, new_secret
from service.auth.people import Owner
from service.auth.tables import keys_table
from service.errors import Conflict, InvalidInput, MemvaultError, NotFound
from service.policy.gate import Gate
from service.scope import Action, Caller, Permission, Scope, TenantId, installation_caller
from service.storage.database import Database

#: How long an old key works beside its successor, unless a rotation says otherwise, and at most.
DEFAULT_OVERLAP: Final = timedelta(days=1)
LONGEST_OVERLAP: Final = timedelta(days=90)
_NONE: Final = "there is no such key"
_c: Final[Any] = keys_table.c
Refusal = tuple[Reason, MemvaultError]


@dataclass(frozen=True, slots=True)
class Rotation:
    """How a key is rotated: for how long both work, and the end of the new one (None: that of the old)."""

    overlap: timedelta = DEFAULT_OVERLAP
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """The successor of a key, with its secret, its grant, and when the old key ends."""

    minted: MintedKey
    grant: Grant
    old_ends_at: datetime


class KeyChanges:
    """What can happen to a key between its making and its revocation."""

    def __init__(self, database: Database, keys: Keys, trail: Trail, gate: Gate) -> None:
        self._database = database
        self._keys = keys
        self._trail = trail
        self._gate = gate

    def rotate(self, caller: Caller, scope: Scope, key_id: UUID, rotation: Rotation) -> RotatedKey:
        """Make a key with the grant of another one, which ends when the overlap is over.

        Done again, since the answer with the secret was lost, it revokes the successor that nobody ever used, makes
        another one, and leaves the end of the old key where the first rotation set it.

        Raises:
            NotFound: when the tenant has no such key, or a bound caller names another than itself.
            Forbidden: when the key may do what the caller's own may not: its successor's secret would widen it.
            Conflict: for a key that has ended, or has a successor that is in use.
        """
        self._gate.check(caller, Action.ROTATE_KEY, targets=[key_id])
        _check(rotation)
        conflicts = self._trail.conflicts(caller, Action.ROTATE_KEY, targets=[key_id])
        with conflicts, self._database.transaction(scope) as connection:
            row = self._locked(connection, caller, key_id)
            refusal = None
            if row is None:
                self._not_found(connection, caller, AuditEvent.KEY_ROTATED, key_id)
            else:
                grant = self._successor_s(connection, scope, row, rotation)
                refusal = self._keys.find_refusal(connection, caller, grant, Action.ROTATE_KEY)
                if refusal is None:
                    # Its maker's and not the old one's: who rotates another's key does not become that person.
                    owner = self._keys.owner_of(connection, caller)
                    made_by = caller.principal.id
                    rotated = self._rotate(connection, caller, row, grant, rotation, owner, created_by=made_by)
        if row is None:
            raise NotFound(_NONE)
        self._raise(caller, Action.ROTATE_KEY, key_id, refusal)
        return rotated

    def rotate_for_installation(self, tenant_id: TenantId, key_id: UUID, rotation: Rotation) -> RotatedKey:
        """Rotate a key with the authority of the installation.

        Raises:
            NotFound, Conflict: as `rotate`.
        """
        _check(rotation)
        caller = installation_caller(tenant_id)
        conflicts = self._trail.conflicts(caller, Action.ROTATE_KEY, targets=[key_id])
        with conflicts, self._database.transaction(caller.scope) as connection:
            row = self._locked(connection, caller, key_id)
            if row is not None:
                grant = self._successor_s(connection, caller.scope, row, rotation)
                owner = self._keys.owner_in(caller.scope, row)
                return self._rotate(connection, caller, row, grant, rotation, owner, created_by=None)
            self._not_found(connection, caller, AuditEvent.KEY_ROTATED, key_id)
        raise NotFound(f"the tenant has no key {key_id}")

    def change(
        self, caller: Caller, scope: Scope, key_id: UUID, permissions: frozenset[Permission]
    ) -> frozenset[Permission]:
        """Give a key other permissions, at once on this replica and within seconds on every other.

        Whoever may make keys may take permissions away from any key, and give those that it has itself.

        Raises:
            NotFound: when the tenant has no such key, or a bound caller names another than itself.
            Forbidden: when the key would get what the caller's own has not.
        """
        self._gate.check(caller, Action.CHANGE_KEY, targets=[key_id])
        with self._database.transaction(scope) as connection:
            row = self._locked(connection, caller, key_id)
            refusal = None
            if row is None:
                self._not_found(connection, caller, AuditEvent.KEY_CHANGED, key_id, KeyChanged(permissions=[]))
            else:
                before = self._keys.grant_of(connection, scope, row)
                added = permissions - before.permissions
                # Asked even when nothing is added: a caller that was revoked meanwhile takes nothing away either.
                asked = replace(before, permissions=added) if added else _nothing_more(caller)
                refusal = self._keys.find_refusal(connection, caller, asked, Action.CHANGE_KEY)
                if refusal is None:
                    self._change(connection, caller, key_id, permissions)
        if row is None:
            raise NotFound(_NONE)
        self._raise(caller, Action.CHANGE_KEY, key_id, refusal)
        return permissions

    def change_for_installation(self, tenant_id: TenantId, key_id: UUID, permissions: frozenset[Permission]) -> None:
        """Give a key other permissions with the authority of the installation.

        Raises:
            NotFound: when the tenant has no such key.
        """
        caller = installation_caller(tenant_id)
        with self._database.transaction(caller.scope) as connection:
            row = self._locked(connection, caller, key_id)
            if row is not None:
                self._change(connection, caller, key_id, permissions)
            else:
                self._not_found(connection, caller, AuditEvent.KEY_CHANGED, key_id, KeyChanged(permissions=[]))
        if row is None:
            raise NotFound(f"the tenant has no key {key_id}")

    def _locked(self, connection: Connection, caller: Caller, key_id: UUID) -> Any | None:
        """Return the row of a key within the caller's reach, locked until this transaction ends, or None."""
        if caller.principal.users is not None and caller.principal.id != key_id:
            return None
        return connection.execute(select(keys_table).where(_c.id == key_id).with_for_update()).first()

    def _rotate(
        self,
        connection: Connection,
        caller: Caller,
        row: Any,
        grant: Grant,
        rotation: Rotation,
        owner: Owner,
        *,
        created_by: UUID | None,
    ) -> RotatedKey:
        moment = clock.now()
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= moment):
            raise Conflict("this key has ended: make a new one instead of rotating it")
        replaced = None
        ends_at = (
            moment + rotation.overlap if row.expires_at is None else min(row.expires_at, moment + rotation.overlap)
        )
        if row.replaced_by is not None:
            successor = connection.execute(select(keys_table).where(_c.id == row.replaced_by).with_for_update()).one()
            if successor.last_used_at is not None and successor.revoked_at is None:
                raise Conflict("this key was rotated, and its successor is in use: rotate that one")
            if successor.revoked_at is None:
                replaced = successor.id
                self._keys.end(connection, caller.scope, successor.id)
            # The end that the first rotation set stands.
            ends_at = row.expires_at
        minted, user_ids = self._keys.store(connection, caller.scope, grant, new_secret(), owner, created_by=created_by)
        connection.execute(update(keys_table).where(_c.id == row.id).values(expires_at=ends_at, replaced_by=minted.id))
        self._trail.write(
            connection,
            caller,
            AuditEvent.KEY_ROTATED,
            subjects=user_ids or (),
            targets=[row.id],
            results=[minted.id],
            detail=KeyRotated(ends_at=ends_at, new_ends_at=grant.expires_at, replaced=replaced),
        )
        return RotatedKey(minted, grant, ends_at)

    def _successor_s(self, connection: Connection, scope: Scope, row: Any, rotation: Rotation) -> Grant:
        """Return the grant of a successor: what the old key has but its beginning, with another end where one is asked.

        Of a key that was rotated already the end is the one before its overlap, which its first successor has.
        """
        grant = self._keys.grant_of(connection, scope, row)
        end = row.expires_at
        if row.replaced_by is not None:
            end = connection.execute(select(_c.expires_at).where(_c.id == row.replaced_by)).scalar_one()
        successor = replace(grant, not_before=None, expires_at=rotation.expires_at or end)
        check_grant(successor)
        return successor

    def _change(self, connection: Connection, caller: Caller, key_id: UUID, permissions: Iterable[Permission]) -> None:
        held = sorted(permissions)
        connection.execute(update(keys_table).where(_c.id == key_id).values(permissions=held))
        self._trail.write(
            connection, caller, AuditEvent.KEY_CHANGED, targets=[key_id], detail=KeyChanged(permissions=held)
        )

    def _not_found(
        self,
        connection: Connection,
        caller: Caller,
        event: AuditEvent,
        key_id: UUID,
        detail: KeyChanged | None = None,
    ) -> None:
        self._trail.write(
            connection, caller, event, outcome=Outcome.NOT_FOUND, targets=[key_id], detail=detail or KeyRotated()
        )

    def _raise(self, caller: Caller, action: Action, key_id: UUID, refusal: Refusal | None) -> None:
        """Record and raise a refusal. Outside the transaction: the pool may have no second connection."""
        if refusal is not None:
            reason, error = refusal
            self._trail.refuse(caller, action, reason, targets=[key_id])
            raise error


def _check(rotation: Rotation) -> None:
    if not timedelta() <= rotation.overlap <= LONGEST_OVERLAP:
        raise InvalidInput(f"overlap: must be 0 seconds to {LONGEST_OVERLAP.days} days")


def _nothing_more(caller: Caller) -> Grant:
    """Return a grant of nothing that is within the caller's own bounds, whatever they are."""
    own = caller.principal
    return Grant(frozenset(), own.users, own.connector, clock.now(), must_name_user=own.must_name_user)
