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

from service import clock
from service.audit.events import AuditEvent
from service.audit.trail import Trail
from service.auth.tables import ApiKeyRow, KeyIndexRow
from service.errors import Forbidden, InvalidInput, NotFound
from service.policy.gate import Gate
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
    service_principal,
)
from service.storage.database import Database
from service.storage.encryption import Place
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

    def __init__(self, database: Database, subjects: Subjects, trail: Trail, gate: Gate) -> None:
        self._database = database
        self._subjects = subjects
        self._trail = trail
        self._gate = gate

    def find_principal(self, secret: str) -> Principal | None:
        """Return whom a secret stands for, or None: unknown, expired, revoked, or its tenant is not active."""
        return self._find(key_hash(secret))

    def mint(self, caller: Caller, scope: Scope, grant: Grant) -> MintedKey:
        """Make a key with a key or an access token: never wider than the one that asks.

        Raises:
            Forbidden: when the grant has a permission, a user, a connector or a life that the caller's own has not.
        """
        self._gate.check(caller, Action.CREATE_KEY)
        principal = caller.principal
        if not grant.permissions <= principal.permissions:
            self._trail.refuse(caller, AuditEvent.ACCESS_DENIED, code="create_key:wider")
            raise Forbidden("a key cannot make a key with permissions that it lacks itself")
        if principal.users is not None and (grant.users is None or not grant.users <= principal.users):
            self._trail.refuse(caller, AuditEvent.ACCESS_DENIED, code="create_key:users")
            raise Forbidden("a key that is bound to users can only make keys that are bound to some of them")
        if principal.connector is not None and grant.connector != principal.connector:
            self._trail.refuse(caller, AuditEvent.ACCESS_DENIED, code="create_key:connector")
            raise Forbidden("a key that is bound to a connector can only make keys for that connector")
        with self._database.transaction(scope) as connection:
            own_end = principal.expires_at
            if principal.kind is PrincipalKind.KEY:
                own_end = connection.execute(select(_keys.c.expires_at).where(_keys.c.id == principal.id)).scalar()
            if own_end is not None and (grant.expires_at is None or grant.expires_at > own_end):
                self._trail.refuse(caller, AuditEvent.ACCESS_DENIED, code="create_key:expiry")
                raise Forbidden("a credential that expires cannot make a key that lives longer")
            minted = self._mint(connection, scope, grant, new_secret(), created_by=principal.id)
            self._trail.write(connection, caller, AuditEvent.KEY_CREATED, targets=[minted.id])
        return minted

    def mint_for_installation(self, tenant_id: TenantId, grant: Grant, *, secret: str | None = None) -> MintedKey:
        """Make a key with the authority of the installation, that is of whoever has the database's credential."""
        caller = Caller(service_principal(tenant_id), request_id=str(clock.new_id()), client="memvault", face="cli")
        with self._database.transaction(caller.scope) as connection:
            minted = self._mint(connection, caller.scope, grant, secret or new_secret(), created_by=None)
            self._trail.write(connection, caller, AuditEvent.KEY_CREATED, targets=[minted.id])
        return minted

    def ensure_bootstrap(self, tenant_id: TenantId, secret: str) -> None:
        """Accept the bootstrap secret as an admin key of the tenant, unless it was ever accepted before.

        A bootstrap key that was revoked stays revoked, however often the service starts with it.
        """
        with self._database.tenant_blind() as connection:
            if connection.execute(select(_index.c.key_id).where(_index.c.key_hash == key_hash(secret))).first():
                return
        self.mint_for_installation(tenant_id, Grant(frozenset(Permission), label="bootstrap"), secret=secret)

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
        with self._database.transaction(scope) as connection:
            bound = caller.principal.users is not None and caller.principal.id != key_id
            if bound or not _revoke(connection, key_id):
                raise NotFound("there is no such key")
            self._trail.write(connection, caller, AuditEvent.KEY_REVOKED, targets=[key_id])

    def revoke_for_installation(self, tenant_id: TenantId, key_id: UUID) -> None:
        """Revoke a key with the authority of the installation.

        Raises:
            NotFound: when the tenant has no such key.
        """
        caller = Caller(service_principal(tenant_id), request_id=str(clock.new_id()), client="memvault", face="cli")
        with self._database.transaction(caller.scope) as connection:
            if not _revoke(connection, key_id):
                raise NotFound(f"the tenant has no key {key_id}")
            self._trail.write(connection, caller, AuditEvent.KEY_REVOKED, targets=[key_id])

    def list_for_installation(self, tenant_id: TenantId) -> Sequence[ApiKey]:
        """Return the keys of a tenant with the authority of the installation."""
        scope = Scope.of(service_principal(tenant_id))
        with self._database.transaction(scope) as connection:
            return [_api_key(row) for row in connection.execute(select(_keys).order_by(_keys.c.created_at, _keys.c.id))]

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
            users = None
            if row.user_ids is not None:
                named = self._subjects.names(connection, scope, row.user_ids)
                users = frozenset(name for kind, name in named.values() if kind is SubjectKind.USER)
            if row.last_used_at is None or clock.now() - row.last_used_at > _LAST_USE_STEP:
                connection.execute(update(_keys).where(_keys.c.id == row.id).values(last_used_at=clock.now()))
        return Principal(
            tenant_id=tenant_id,
            id=row.id,
            permissions=permissions_of(row.permissions),
            users=users,
            connector=row.connector,
            name=row.prefix,
        )

    def _mint(
        self, connection: Connection, scope: Scope, grant: Grant, secret: str, *, created_by: UUID | None
    ) -> MintedKey:
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


def find_live_key(connection: Connection, key_id: UUID) -> Any | None:
    """Return the row of a key that is neither revoked nor expired, or None."""
    row = connection.execute(select(_keys).where(_keys.c.id == key_id)).first()
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= clock.now()):
        return None
    return row


def permissions_of(names: Iterable[str]) -> frozenset[Permission]:
    """Return the permissions of these names; one that this release does not know grants nothing."""
    known = {permission.value: permission for permission in Permission}
    return frozenset(known[name] for name in names if name in known)


def _revoke(connection: Connection, key_id: UUID) -> bool:
    row = connection.execute(select(_keys.c.id, _keys.c.revoked_at).where(_keys.c.id == key_id)).first()
    if row is None:
        return False
    if row.revoked_at is None:
        connection.execute(update(_keys).where(_keys.c.id == key_id).values(revoked_at=clock.now()))
    return True


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
