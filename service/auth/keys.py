"""API keys: minted, checked, listed and revoked. Only a hash is kept; a key never leaves its tenant or grows."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from service import clock
from service.audit.details import KeyCreated, Reason
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.auth.tables import ApiKeyRow, KeyIndexRow
from service.errors import Forbidden, InvalidInput, MemvaultError, NotFound, Unauthenticated
from service.policy.gate import Gate
from service.policy.table import authorize
from service.records import SubjectNames
from service.scope import (
    Action,
    Caller,
    Permission,
    Principal,
    PrincipalKind,
    Scope,
    SubjectKind,
    TenantId,
    installation_caller,
    service_principal,
)
from service.storage.database import Database
from service.storage.encryption import Place
from service.storage.tombstones import Tombstone, TombstoneKind, Tombstones, tombstone_id
from service.tenants.actions import is_active
from service.tenants.subjects import Subjects

_keys: Final[Any] = ApiKeyRow.__table__  # type: ignore[attr-defined]
_index: Final[Any] = KeyIndexRow.__table__  # type: ignore[attr-defined]
_SECRET_BYTES: Final = 32
_LAST_USE_STEP: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new key may do. `users` None is all users of the tenant."""

    permissions: frozenset[Permission]
    users: frozenset[str] | None = None
    connector: str | None = None
    expires_at: datetime | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is listed: never with its secret."""

    id: UUID
    prefix: str
    permissions: frozenset[Permission]
    bound_to_users: int | None
    connector: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key with its secret, which is shown once."""

    id: UUID
    tenant_id: TenantId
    secret: str


class Keys:
    """The keys of all tenants."""

    def __init__(
        self, database: Database, subjects: Subjects, trail: Trail, gate: Gate, tombstones: Tombstones
    ) -> None:
        self._database = database
        self._subjects = subjects
        self._trail = trail
        self._gate = gate
        self._tombstones = tombstones

    def find_principal(self, secret: str) -> Principal | None:
        """Return whom a secret stands for, or None: unknown, expired, revoked, or its tenant is not active."""
        return self._find(key_hash(secret))

    def mint(self, caller: Caller, scope: Scope, grant: Grant) -> MintedKey:
        """Make a key with a key or an access token: never wider than the one that asks.

        What the asking key may do is read again here: a face trusts a checked key for some seconds, and a new key must
        not outlive the revocation of the one that made it.

        Raises:
            Unauthenticated: when the caller's key was revoked, has expired or lost its tenant meanwhile.
            Forbidden: when the grant has a permission, a user, a connector or a life that the caller's own has not.
        """
        self._gate.check(caller, Action.CREATE_KEY)
        refusal: tuple[Reason, MemvaultError] | None
        with self._database.transaction(scope) as connection:
            principal = caller.principal
            own_end = principal.expires_at
            live = True
            if principal.kind is PrincipalKind.KEY:
                row = find_live_key(connection, principal.id, keep=True)
                live = row is not None
                if row is not None:
                    principal, own_end = self._principal(connection, scope, row), row.expires_at
            if not live or not is_active(connection, scope.tenant_id):
                refusal = (Reason.REVOKED, Unauthenticated("the API key is not valid any more"))
            else:
                refusal = _wider(grant, principal, own_end)
            if refusal is None:
                minted = self._mint(connection, caller, grant, new_secret(), created_by=principal.id)
        if refusal is not None:
            # After the block: the trail takes a connection of its own, and the pool may have no second one.
            reason, error = refusal
            self._trail.refuse(caller, Action.CREATE_KEY, reason)
            raise error
        return minted

    def mint_for_installation(self, tenant_id: TenantId, grant: Grant, *, secret: str | None = None) -> MintedKey:
        """Make a key with the authority of the installation, that is of whoever has the database's credential."""
        caller = installation_caller(tenant_id)
        with self._database.transaction(caller.scope) as connection:
            return self._mint(connection, caller, grant, secret or new_secret(), created_by=None)

    def ensure_bootstrap(self, tenant_id: TenantId, secret: str, *, label: str = "bootstrap") -> bool:
        """Accept a secret as an admin key of the tenant unless it was ever accepted; tell whether it is new.

        A key that was revoked stays revoked, however often the service starts with its secret.
        """
        with self._database.tenant_blind() as connection:
            if connection.execute(select(_index.c.key_id).where(_index.c.key_hash == key_hash(secret))).first():
                return False
        try:
            self.mint_for_installation(tenant_id, Grant(frozenset(Permission), label=label), secret=secret)
        except IntegrityError:
            # Another process that starts with the same secret was first.
            return False
        return True

    def list(self, caller: Caller, scope: Scope) -> Sequence[ApiKey]:
        """Return the tenant's keys, the oldest first; a bound key sees none but itself."""
        self._gate.check(caller, Action.LIST_KEYS)
        with self._database.transaction(scope) as connection:
            query = select(_keys).order_by(_keys.c.created_at, _keys.c.id)
            if caller.principal.users is not None:
                query = query.where(_keys.c.id == caller.principal.id)
            keys = [_api_key(row) for row in connection.execute(query)]
            self._trail.write(connection, caller, AuditEvent.KEYS_LISTED, results=[key.id for key in keys])
        return keys

    def revoke(self, caller: Caller, scope: Scope, key_id: UUID) -> None:
        """Revoke a key of the caller's tenant, for good. Doing it again is harmless.

        Raises:
            NotFound: when the tenant has no such key, or a bound key names another than itself.
        """
        self._gate.check(caller, Action.REVOKE_KEY, targets=[key_id])
        bound = caller.principal.users is not None and caller.principal.id != key_id
        if not self._revoke(caller, scope, key_id, reachable=not bound):
            raise NotFound("there is no such key")

    def revoke_for_installation(self, tenant_id: TenantId, key_id: UUID) -> None:
        """Revoke a key with the authority of the installation.

        Raises:
            NotFound: when the tenant has no such key.
        """
        caller = installation_caller(tenant_id)
        if not self._revoke(caller, caller.scope, key_id):
            raise NotFound(f"the tenant has no key {key_id}")

    def list_for_installation(self, tenant_id: TenantId) -> Sequence[ApiKey]:
        """Return the keys of a tenant with the authority of the installation."""
        caller = installation_caller(tenant_id)
        with self._database.transaction(caller.scope) as connection:
            query = select(_keys).order_by(_keys.c.created_at, _keys.c.id)
            keys = [_api_key(row) for row in connection.execute(query)]
            self._trail.write(connection, caller, AuditEvent.KEYS_LISTED, results=[key.id for key in keys])
        return keys

    def revoke_again(self, tombstone: Tombstone) -> None:
        """Revoke the keys of a tombstone in a database that was restored to a time before they were revoked."""
        scope = Scope.of(service_principal(tombstone.tenant_id))
        with self._database.transaction(scope) as connection:
            live = _keys.c.id.in_(tombstone.ids) & _keys.c.revoked_at.is_(None)
            connection.execute(update(_keys).where(live).values(revoked_at=tombstone.at))

    def _find(self, hashed: bytes) -> Principal | None:
        with self._database.tenant_blind() as connection:
            indexed = connection.execute(
                select(_index.c.tenant_id, _index.c.key_id).where(_index.c.key_hash == hashed)
            ).first()
            if indexed is None or not is_active(connection, TenantId(indexed.tenant_id)):
                return None
        tenant_id = TenantId(indexed.tenant_id)
        scope = Scope.of(service_principal(tenant_id))
        with self._database.transaction(scope) as connection:
            row = find_live_key(connection, indexed.key_id)
            if row is None:
                return None
            if row.last_used_at is None or clock.now() - row.last_used_at > _LAST_USE_STEP:
                connection.execute(update(_keys).where(_keys.c.id == row.id).values(last_used_at=clock.now()))
            return self._principal(connection, scope, row)

    def _principal(self, connection: Connection, scope: Scope, row: Any) -> Principal:
        users = None
        if row.user_ids is not None:
            named = self._subjects.names(connection, scope, row.user_ids)
            users = frozenset(name for kind, name in named.values() if kind is SubjectKind.USER)
        return Principal(
            tenant_id=scope.tenant_id,
            id=row.id,
            permissions=permissions_of(row.permissions),
            users=users,
            connector=row.connector,
            name=row.prefix,
            acts_for=key_acts_for(row),
        )

    def _revoke(self, caller: Caller, scope: Scope, key_id: UUID, *, reachable: bool = True) -> bool:
        """Revoke a key if there is one within reach, tell whether there is, and write down either way who asked."""
        with self._database.transaction(scope) as connection:
            row = None
            if reachable:
                # Waits for a key that is being minted with this one, so that whoever lists the keys next sees it.
                row = connection.execute(select(_keys).where(_keys.c.id == key_id).with_for_update()).first()
            if row is not None and row.revoked_at is None:
                kind = TombstoneKind.KEY_REVOKED
                tombstone = self._tombstones.append(
                    kind, scope.tenant_id, [key_id], tombstone=tombstone_id(kind, scope.tenant_id, key_id)
                )
                connection.execute(update(_keys).where(_keys.c.id == key_id).values(revoked_at=tombstone.at))
                self._tombstones.note(connection, tombstone)
            outcome = Outcome.DONE if row is not None else Outcome.NOT_FOUND
            self._trail.write(connection, caller, AuditEvent.KEY_REVOKED, outcome=outcome, targets=[key_id])
        return row is not None

    def _mint(
        self, connection: Connection, caller: Caller, grant: Grant, secret: str, *, created_by: UUID | None
    ) -> MintedKey:
        scope = caller.scope
        key_id = clock.new_id()
        user_ids = None
        if grant.users is not None:
            if not grant.users:
                raise InvalidInput("a key that is bound to users must name one at least")
            user_ids = [self._subjects.ensure(connection, scope, SubjectNames(user_id=u)).owner for u in grant.users]
        connection.execute(
            insert(_keys).values(
                tenant_id=scope.tenant_id,
                id=key_id,
                prefix=secret[:8],
                label=self._sealed_label(scope, key_id, grant.label),
                permissions=sorted(grant.permissions),
                user_ids=user_ids,
                connector=grant.connector,
                created_by=created_by,
                created_at=clock.now(),
                expires_at=grant.expires_at,
            )
        )
        connection.execute(insert(_index).values(key_hash=key_hash(secret), tenant_id=scope.tenant_id, key_id=key_id))
        self._trail.write(
            connection,
            caller,
            AuditEvent.KEY_CREATED,
            subjects=user_ids or (),
            targets=[key_id],
            detail=KeyCreated(
                permissions=sorted(grant.permissions),
                users=None if user_ids is None else len(user_ids),
                expires_at=grant.expires_at,
            ),
        )
        return MintedKey(id=key_id, tenant_id=scope.tenant_id, secret=secret)

    def _sealed_label(self, scope: Scope, key_id: UUID, label: str | None) -> bytes | None:
        if label is None:
            return None
        return self._subjects.tenant_cipher(scope).seal(
            label.encode(), Place(scope.tenant_id, "api_keys", key_id, "label")
        )


def new_secret() -> str:
    """Return a new key: a recognisable prefix and 256 random bits."""
    return f"mv_{secrets.token_urlsafe(_SECRET_BYTES)}"


def key_hash(secret: str) -> bytes:
    """Return the SHA-256 of a key. Keys have 256 random bits, so that a fast hash cannot be searched backwards."""
    return hashlib.sha256(secret.encode()).digest()


def find_live_key(connection: Connection, key_id: UUID, *, keep: bool = False) -> Any | None:
    """Return the row of a key that is neither revoked nor expired, or None.

    `keep` lets nobody revoke it until this transaction ends.
    """
    query = select(_keys).where(_keys.c.id == key_id)
    row = connection.execute(query.with_for_update(read=True) if keep else query).first()
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= clock.now()):
        return None
    return row


def key_acts_for(row: Any) -> UUID | None:
    """Return the one user that the key of a row acts for, or None when it is bound to none or to several."""
    return UUID(str(row.user_ids[0])) if row.user_ids is not None and len(row.user_ids) == 1 else None


def permissions_of(names: Iterable[str]) -> frozenset[Permission]:
    """Return the permissions of these names; one that this release does not know grants nothing."""
    known = {permission.value: permission for permission in Permission}
    return frozenset(known[name] for name in names if name in known)


def _wider(grant: Grant, principal: Principal, own_end: datetime | None) -> tuple[Reason, MemvaultError] | None:
    """Return in what a grant goes beyond the key that would make it, as a code and an error, or None."""
    if not authorize(principal, Action.CREATE_KEY):
        return Reason.PERMISSION, Forbidden("this key may not make keys any more")
    if not grant.permissions <= principal.permissions:
        return Reason.WIDER, Forbidden("a key cannot make a key with permissions that it lacks itself")
    if principal.users is not None and (grant.users is None or not grant.users <= principal.users):
        return Reason.USERS, Forbidden("a key that is bound to users can only make keys that are bound to some of them")
    if principal.connector is not None and grant.connector != principal.connector:
        return Reason.CONNECTOR, Forbidden("a key that is bound to a connector can only make keys for that connector")
    if own_end is not None and (grant.expires_at is None or grant.expires_at > own_end):
        return Reason.EXPIRY, Forbidden("a key that expires cannot make one that lives longer")
    return None


def _api_key(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        prefix=row.prefix,
        permissions=permissions_of(row.permissions),
        bound_to_users=None if row.user_ids is None else len(row.user_ids),
        connector=row.connector,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
