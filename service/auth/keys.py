"""API keys: minted, checked, listed and revoked. Only a hash is kept; a key never leaves its tenant."""

from __future__ import annotations

import hashlib
import hmac
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
from service.auth.endings import journal_end
from service.auth.grants import Grant, check_grant, find_wider
from service.auth.people import Owner, find_person, kept_person, subject_person
from service.auth.tables import KeyIndexRow, keys_table
from service.errors import KeyringUnavailable, MemvaultError, NotFound, Unauthenticated
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
    installation_caller,
    service_principal,
)
from service.storage.database import Database
from service.storage.encryption import Place
from service.storage.keyring import KeyDestroyed, KeyLost, Keyring
from service.storage.together import open_together, seal_together
from service.storage.tombstones import Tombstone, Tombstones
from service.tenants.actions import TenantState, find_state
from service.tenants.subjects import Subjects

_index: Final[Any] = KeyIndexRow.__table__  # type: ignore[attr-defined]
_SECRET_BYTES: Final = 32
_LAST_USE_STEP: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is listed: never with its secret."""

    id: UUID
    prefix: str
    permissions: frozenset[Permission]
    bound_to_users: int | None
    connector: str | None
    created_at: datetime
    not_before: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    must_name_user: bool
    replaced_by: UUID | None
    owner: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key with its secret, which is shown once."""

    id: UUID
    tenant_id: TenantId
    secret: str


class Keys:
    """The keys of all tenants."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        subjects: Subjects,
        trail: Trail,
        gate: Gate,
        tombstones: Tombstones,
        *,
        issuer: str = "",
    ) -> None:
        """Take the stores, and the issuer of access tokens: an owner is a person as its subjects are."""
        self._database = database
        self._keyring = keyring
        self._issuer = issuer
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
        check_grant(grant)
        with self._database.transaction(scope) as connection:
            refusal = self.find_refusal(connection, caller, grant, Action.CREATE_KEY)
            if refusal is None:
                owner = self.owner_of(connection, caller)
                minted = self.insert(connection, caller, grant, new_secret(), owner, created_by=caller.principal.id)
        if refusal is not None:
            # After the block: the trail takes a connection of its own, and the pool may have no second one.
            reason, error = refusal
            self._trail.refuse(caller, Action.CREATE_KEY, reason)
            raise error
        return minted

    def mint_for_installation(self, tenant_id: TenantId, grant: Grant, *, secret: str | None = None) -> MintedKey:
        """Make a key with the authority of the installation, that is of whoever has the database's credential."""
        check_grant(grant)
        caller = installation_caller(tenant_id)
        owner = Owner()
        if grant.owner is not None:
            person = kept_person(self._keyring, tenant_id, subject_person(self._issuer, grant.owner))
            owner = Owner(person, grant.owner.strip())
        with self._database.transaction(caller.scope) as connection:
            return self.insert(connection, caller, grant, secret or new_secret(), owner, created_by=None)

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
            query = select(keys_table).order_by(keys_table.c.created_at, keys_table.c.id)
            if caller.principal.users is not None:
                query = query.where(keys_table.c.id == caller.principal.id)
            keys = [self._api_key(scope, row) for row in connection.execute(query)]
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
            query = select(keys_table).order_by(keys_table.c.created_at, keys_table.c.id)
            keys = [self._api_key(caller.scope, row) for row in connection.execute(query)]
            self._trail.write(connection, caller, AuditEvent.KEYS_LISTED, results=[key.id for key in keys])
        return keys

    def revoke_again(self, tombstone: Tombstone) -> None:
        """Revoke the keys of a tombstone in a database that was restored to a time before they were revoked."""
        scope = Scope.of(service_principal(tombstone.tenant_id))
        with self._database.transaction(scope) as connection:
            live = keys_table.c.id.in_(tombstone.ids) & keys_table.c.revoked_at.is_(None)
            connection.execute(update(keys_table).where(live).values(revoked_at=tombstone.at))

    def _find(self, hashed: bytes) -> Principal | None:
        with self._database.tenant_blind() as connection:
            indexed = connection.execute(select(_index).where(_index.c.key_hash == hashed)).first()
            # The row was found by a hash, which nobody can steer; whether it is the one is decided in constant time.
            if indexed is None or not hmac.compare_digest(bytes(indexed.key_hash), hashed):
                return None
            # The state before the key: a change in between makes this answer older than its key, never newer.
            state = find_state(connection, TenantId(indexed.tenant_id))
            if state is None or not state.active:
                return None
        tenant_id = TenantId(indexed.tenant_id)
        scope = Scope.of(service_principal(tenant_id))
        with self._database.transaction(scope) as connection:
            row = find_live_key(connection, indexed.key_id)
            if row is None:
                return None
            if row.last_used_at is None or clock.now() - row.last_used_at > _LAST_USE_STEP:
                connection.execute(update(keys_table).where(keys_table.c.id == row.id).values(last_used_at=clock.now()))
            return self._principal(connection, scope, row, state)

    def end(self, connection: Connection, scope: Scope, key_id: UUID) -> None:
        """Revoke a key in the caller's transaction, so that no restore of the database can bring it back."""
        tombstone = journal_end(connection, self._tombstones, scope, key_id)
        connection.execute(update(keys_table).where(keys_table.c.id == key_id).values(revoked_at=tombstone.at))

    def find_refusal(
        self, connection: Connection, caller: Caller, grant: Grant, action: Action
    ) -> tuple[Reason, MemvaultError] | None:
        """Return why a caller may not make a key with this grant, by what it may do now, or None.

        Nobody can revoke the caller's own key until the transaction ends.
        """
        scope, principal = caller.scope, caller.principal
        own_end = principal.expires_at
        live = True
        if principal.kind is PrincipalKind.KEY:
            row = find_live_key(connection, principal.id, keep=True)
            live = row is not None
            if row is not None:
                own_end = row.expires_at
                principal = self._principal(connection, scope, row)
                if caller.principal.acting is not None:
                    principal = principal.acting_as(caller.principal.acting, caller.acting)
        state = find_state(connection, scope.tenant_id)
        if not live or state is None or not state.active:
            return Reason.REVOKED, Unauthenticated("the API key is not valid any more")
        return find_wider(grant, principal, own_end, action=action)

    def owner_of(self, connection: Connection, caller: Caller) -> Owner:
        """Return whose the keys are that a caller makes: its own person's."""
        if caller.principal.kind is PrincipalKind.TOKEN:
            return Owner(find_person(self._keyring, caller.principal))
        return self.owner_in(caller.scope, find_live_key(connection, caller.principal.id))

    def owner_in(self, scope: Scope, row: Any | None) -> Owner:
        """Return whose the key of a row is."""
        if row is None:
            return Owner()
        return Owner(row.owner_id, self._opened(scope, row.id, "owner", row.owner))

    def grant_of(self, connection: Connection, scope: Scope, row: Any) -> Grant:
        """Return what the key of a row may do."""
        principal = self._principal(connection, scope, row)
        label = self._opened(scope, row.id, "label", row.label, row.user_ids or ())
        return Grant(
            principal.permissions,
            principal.users,
            row.connector,
            row.expires_at,
            label,
            row.not_before,
            row.must_name_user,
        )

    def _principal(self, connection: Connection, scope: Scope, row: Any, state: TenantState | None = None) -> Principal:
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
            expires_at=row.expires_at,
            must_name_user=row.must_name_user,
            version=0 if state is None else state.version,
            limits={} if state is None else state.limits,
            person=row.owner_id,
        )

    def _revoke(self, caller: Caller, scope: Scope, key_id: UUID, *, reachable: bool = True) -> bool:
        """Revoke a key if there is one within reach, tell whether there is, and write down either way who asked."""
        with self._database.transaction(scope) as connection:
            row = None
            if reachable:
                # Waits for a key that is being minted with this one, so that whoever lists the keys next sees it.
                row = connection.execute(select(keys_table).where(keys_table.c.id == key_id).with_for_update()).first()
            if row is not None and row.revoked_at is None:
                self.end(connection, scope, key_id)
            outcome = Outcome.DONE if row is not None else Outcome.NOT_FOUND
            self._trail.write(connection, caller, AuditEvent.KEY_REVOKED, outcome=outcome, targets=[key_id])
        return row is not None

    def insert(
        self,
        connection: Connection,
        caller: Caller,
        grant: Grant,
        secret: str,
        owner: Owner,
        *,
        created_by: UUID | None,
    ) -> MintedKey:
        """Write a key with its audit row, in the caller's transaction; what the caller may do was checked."""
        minted, user_ids = self.store(connection, caller.scope, grant, secret, owner, created_by=created_by)
        self._trail.write(
            connection,
            caller,
            AuditEvent.KEY_CREATED,
            subjects=user_ids or (),
            targets=[minted.id],
            detail=KeyCreated(
                permissions=sorted(grant.permissions),
                users=None if user_ids is None else len(user_ids),
                not_before=grant.not_before,
                expires_at=grant.expires_at,
                must_name_user=grant.must_name_user,
            ),
        )
        return minted

    def store(
        self,
        connection: Connection,
        scope: Scope,
        grant: Grant,
        secret: str,
        owner: Owner,
        *,
        created_by: UUID | None,
    ) -> tuple[MintedKey, Sequence[UUID] | None]:
        """Write a key without an audit row, which is its caller's to write; return also the users it is bound to."""
        key_id = clock.new_id()
        user_ids = None
        if grant.users is not None:
            # In one order, so that two grants with the same new users never wait for each other.
            named = [SubjectNames(user_id=user) for user in sorted(grant.users)]
            user_ids = [self._subjects.ensure(connection, scope, one).owner for one in named]
        connection.execute(
            insert(keys_table).values(
                tenant_id=scope.tenant_id,
                id=key_id,
                prefix=secret[:8],
                label=self._sealed(scope, key_id, "label", grant.label, user_ids or ()),
                owner_id=owner.person_id,
                owner=self._sealed(scope, key_id, "owner", owner.name),
                permissions=sorted(grant.permissions),
                user_ids=user_ids,
                connector=grant.connector,
                created_by=created_by,
                created_at=clock.now(),
                not_before=grant.not_before,
                expires_at=grant.expires_at,
                must_name_user=grant.must_name_user,
            )
        )
        connection.execute(insert(_index).values(key_hash=key_hash(secret), tenant_id=scope.tenant_id, key_id=key_id))
        return MintedKey(id=key_id, tenant_id=scope.tenant_id, secret=secret), user_ids

    def _sealed(
        self, scope: Scope, key_id: UUID, column: str, text: str | None, users: Sequence[UUID] = ()
    ) -> bytes | None:
        """Seal a text of a key so that it opens no more once one of the users is erased whom it may name."""
        if text is None:
            return None
        cipher = self._subjects.tenant_cipher(scope)
        return seal_together(self._keyring, cipher, users, text.encode(), _place(scope, key_id, column))

    def _opened(
        self, scope: Scope, key_id: UUID, column: str, sealed: bytes | None, users: Sequence[UUID] = ()
    ) -> str | None:
        if sealed is None:
            return None
        cipher = self._subjects.tenant_cipher(scope)
        try:
            return open_together(self._keyring, cipher, users, sealed, _place(scope, key_id, column)).decode()
        except (KeyDestroyed, KeyLost):
            return None

    def _api_key(self, scope: Scope, row: Any) -> ApiKey:
        return ApiKey(
            id=row.id,
            prefix=row.prefix,
            permissions=permissions_of(row.permissions),
            bound_to_users=None if row.user_ids is None else len(row.user_ids),
            connector=row.connector,
            created_at=row.created_at,
            not_before=row.not_before,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
            revoked_at=row.revoked_at,
            must_name_user=row.must_name_user,
            replaced_by=row.replaced_by,
            owner=self._listed(scope, row.id, "owner", row.owner),
            label=self._listed(scope, row.id, "label", row.label, row.user_ids or ()),
        )

    def _listed(
        self, scope: Scope, key_id: UUID, column: str, sealed: bytes | None, users: Sequence[UUID] = ()
    ) -> str | None:
        """Return a text of a key. Without what opens it there is none: keys are still listed and revoked."""
        try:
            return self._opened(scope, key_id, column, sealed, users)
        except (KeyringUnavailable, KeyDestroyed):
            return None


def new_secret() -> str:
    """Return a new key: a recognisable prefix and 256 random bits."""
    return f"mv_{secrets.token_urlsafe(_SECRET_BYTES)}"


def key_hash(secret: str) -> bytes:
    """Return the SHA-256 of a key. Keys have 256 random bits, so that a fast hash cannot be searched backwards."""
    return hashlib.sha256(secret.encode()).digest()


def find_live_key(connection: Connection, key_id: UUID, *, keep: bool = False) -> Any | None:
    """Return the row of a key that is valid now, that is begun and neither revoked nor expired, or None.

    `keep` lets nobody revoke it until this transaction ends.
    """
    query = select(keys_table).where(keys_table.c.id == key_id)
    row = connection.execute(query.with_for_update(read=True) if keep else query).first()
    if row is None or row.revoked_at is not None:
        return None
    moment = clock.now()
    begun = row.not_before is None or row.not_before <= moment
    return row if begun and (row.expires_at is None or row.expires_at > moment) else None


def _place(scope: Scope, key_id: UUID, column: str) -> Place:
    return Place(scope.tenant_id, "api_keys", key_id, column)


def key_acts_for(row: Any) -> UUID | None:
    """Return the one user that the key of a row acts for, or None when it is bound to none or to several."""
    return UUID(str(row.user_ids[0])) if row.user_ids is not None and len(row.user_ids) == 1 else None


def permissions_of(names: Iterable[str]) -> frozenset[Permission]:
    """Return the permissions of these names; one that this release does not know grants nothing."""
    known = {permission.value: permission for permission in Permission}
    return frozenset(known[name] for name in names if name in known)


__all__ = ["ApiKey", "Grant", "Keys", "MintedKey", "find_live_key", "key_hash", "new_secret"]
