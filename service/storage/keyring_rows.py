"""The keyring in a database of its own: one row a key, wrapped by a key that is kept elsewhere.

What a replica remembers is believed while it has asked, some seconds ago at most, which keys were destroyed since. So
the database is asked once in two seconds and once for each key that is not remembered.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, text

from service import clock
from service.errors import ConfigurationError, KeyringUnavailable
from service.scope import TenantId
from service.storage.encryption import Cipher
from service.storage.keyring import BELIEVED_SECONDS, CACHED_KEYS, KEY_BYTES, KeyDestroyed, KeyLost, KeyMissing
from service.storage.keyring_database import KeyringDatabase
from service.storage.wrapping import NotWrappedSo, WrappingKeys

#: The subject of a tenant's own key.
OWN: Final = UUID(int=0)
_ASKED_SECONDS: Final = 2.0
#: While the database is away, it is tried as often as this and not by each call.
_AWAY_SECONDS: Final = 0.5
_AT_ONCE: Final = 1000
_REMEDY: Final = "restore the keyring's database from its backup, or set the keyring.wrapping_key that belongs to it"

_TAKE_TURN: Final = text("SELECT changes FROM keyring_state FOR UPDATE")
_KNOWN: Final = text("SELECT check_value FROM wrapping_keys")
_ADMIT: Final = text("INSERT INTO wrapping_keys (check_value) VALUES (:check) ON CONFLICT DO NOTHING")
_READ: Final = text("SELECT wrapped, wrapped_by FROM keys WHERE tenant_id = :tenant AND subject_id = :subject")
#: Held until the commit, so that the tenant is erased before it, and no key is made, or after it, with the key.
_OF_TENANT: Final = text("SELECT wrapped IS NULL FROM keys WHERE tenant_id = :tenant AND subject_id = :own FOR SHARE")
_MAKE: Final = text(
    "INSERT INTO keys (tenant_id, subject_id, wrapped, wrapped_by) VALUES (:tenant, :subject, :wrapped, :by)"
    " ON CONFLICT DO NOTHING"
)
_NUMBER: Final = text("UPDATE keyring_state SET changes = changes + 1 RETURNING changes")
_DESTROY: Final = text(
    "INSERT INTO keys (tenant_id, subject_id, destroyed_at, destroyed_no) VALUES (:tenant, :subject, now(), :number)"
    " ON CONFLICT (tenant_id, subject_id) DO UPDATE SET wrapped = NULL, wrapped_by = NULL, destroyed_at = now(),"
    " destroyed_no = excluded.destroyed_no WHERE keys.destroyed_no IS NULL"
)
_DESTROY_ALL: Final = text(
    "UPDATE keys SET wrapped = NULL, wrapped_by = NULL, destroyed_at = now(), destroyed_no = :number"
    " WHERE tenant_id = :tenant AND destroyed_no IS NULL"
)
_CHANGES: Final = text(
    "SELECT s.changes, k.tenant_id, k.subject_id FROM keyring_state s LEFT JOIN keys k ON k.destroyed_no > :seen"
)
_OTHERS: Final = text(
    "SELECT tenant_id, subject_id, wrapped, wrapped_by FROM keys"
    " WHERE wrapped_by = ANY(:others) ORDER BY tenant_id, subject_id LIMIT :limit FOR UPDATE"
)
_REWRAP: Final = text(
    "UPDATE keys SET wrapped = :wrapped, wrapped_by = :by WHERE tenant_id = :tenant AND subject_id = :subject"
)
_DISMISS: Final = text(
    "DELETE FROM wrapping_keys w WHERE check_value <> :check"
    " AND NOT EXISTS (SELECT 1 FROM keys k WHERE k.wrapped_by = w.check_value)"
)

_Known = tuple[TenantId, UUID]


class DatabaseKeyring:
    """A keyring of rows; see `service.storage.keyring.Keyring`."""

    def __init__(self, database: KeyringDatabase, wrapping: WrappingKeys) -> None:
        """Open the keyring with its wrapping key.

        Raises:
            ConfigurationError: when the database cannot be used, or the wrapping key is another one's.
        """
        self._database = database
        self._wrapping = wrapping
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._ciphers: OrderedDict[_Known, Cipher] = OrderedDict()
        self._secrets: dict[tuple[TenantId, str], bytes] = {}
        self._new: dict[_Known, bytes] = {}
        self._forgotten = 0
        self._seen = 0
        self._asked = float("-inf")
        self._failed = float("-inf")
        database.check()
        self._admit()

    @property
    def place(self) -> str:
        """Where the keyring is, for messages."""
        return self._database.place

    @property
    def remedy(self) -> str:
        """What to do when it is not the one of the data."""
        return _REMEDY

    def ping(self) -> None:
        """Raise KeyringUnavailable unless keys can be read."""
        self._database.ping()

    def rewrite(self) -> None:
        """Write the keys anew, so that destroyed ones are in no file of the table any more."""
        self._database.rewrite()

    def subject(self, tenant_id: TenantId, subject_id: UUID) -> Cipher:
        """Return the cipher of a subject."""
        known = (tenant_id, subject_id)
        self._ask()
        with self._lock:
            if (new := self._new.get(known)) is not None:
                return Cipher(new)
            forgotten, cached = self._forgotten, self._ciphers.get(known)
            if cached is not None:
                self._ciphers.move_to_end(known)
                return cached
        cipher = Cipher(self._read(tenant_id, subject_id))
        with self._lock:
            # Else a key was destroyed since this one was read. It may be this one, and would be kept.
            if self._forgotten == forgotten:
                self._ciphers[known] = cipher
                while len(self._ciphers) > CACHED_KEYS:
                    self._ciphers.popitem(last=False)
        return cipher

    def new_subject(self, tenant_id: TenantId, subject_id: UUID) -> Cipher:
        """Make the key of a new subject in memory."""
        key = secrets.token_bytes(KEY_BYTES)
        with self._lock:
            self._new[(tenant_id, subject_id)] = key
        return Cipher(key)

    def create_subject(self, tenant_id: TenantId, subject_id: UUID) -> Cipher:
        """Make the key of a new subject durable and return its cipher."""
        with self._lock:
            key = self._new.get((tenant_id, subject_id))
        self._make(tenant_id, subject_id, key)
        self.forget_new(tenant_id, subject_id)
        return self.subject(tenant_id, subject_id)

    def forget_new(self, tenant_id: TenantId, subject_id: UUID) -> None:
        """Drop a key that was not made durable."""
        with self._lock:
            self._new.pop((tenant_id, subject_id), None)

    def destroy_subject(self, tenant_id: TenantId, subject_id: UUID) -> None:
        """Replace a subject's key by a tombstone, durably, and forget it here."""
        with self._database.writing() as connection:
            number = connection.execute(_NUMBER).scalar_one()
            connection.execute(_DESTROY, {"tenant": tenant_id, "subject": subject_id, "number": number})
        self._forget([(tenant_id, subject_id)])

    def create_tenant(self, tenant_id: TenantId) -> None:
        """Make the key of a new tenant durable."""
        self._make(tenant_id, OWN)

    def destroy_tenant(self, tenant_id: TenantId) -> None:
        """Replace the tenant's key and those of its subjects by tombstones, durably, and forget them here."""
        with self._database.writing() as connection:
            number = connection.execute(_NUMBER).scalar_one()
            connection.execute(_DESTROY, {"tenant": tenant_id, "subject": OWN, "number": number})
            connection.execute(_DESTROY_ALL, {"tenant": tenant_id, "number": number})
        self._forget([(tenant_id, OWN)])

    def tenant_secret(self, tenant_id: TenantId, purpose: str) -> bytes:
        """Return the tenant's secret for a purpose, derived with HKDF-SHA256 (RFC 5869) from the tenant's key."""
        known = (tenant_id, purpose)
        self._ask()
        with self._lock:
            forgotten = self._forgotten
            if secret := self._secrets.get(known):
                return secret
        key = self._read(tenant_id, OWN)
        secret = HKDF(SHA256(), KEY_BYTES, salt=None, info=f"memvault/{purpose}".encode()).derive(key)
        with self._lock:
            if self._forgotten == forgotten:
                self._secrets[known] = secret
        return secret

    def check(self, tenant_id: TenantId, subject_id: UUID | None = None) -> None:
        """Return when the key of a subject, or the tenant's own, is there now, whatever is remembered of it."""
        self._read(tenant_id, OWN if subject_id is None else subject_id)

    def rewrap(self) -> int:
        """Wrap all keys by the present wrapping key, let go of others that wrap nothing more, return how many."""
        others = [] if self._wrapping.second is None else [self._wrapping.second.check_value]
        count, last = 0, _AT_ONCE
        while last == _AT_ONCE:
            with self._database.writing() as connection:
                rows = connection.execute(_OTHERS, {"others": others, "limit": _AT_ONCE}).all()
                for row in rows:
                    wrapped = self._wrapping.current.wrap(
                        self._unwrapped(row.tenant_id, row.subject_id, row), row.tenant_id, row.subject_id
                    )
                    by = self._wrapping.current.check_value
                    values = {"tenant": row.tenant_id, "subject": row.subject_id, "wrapped": wrapped, "by": by}
                    connection.execute(_REWRAP, values)
                last = len(rows)
                count += last
        with self._database.writing() as connection:
            connection.execute(_TAKE_TURN)
            connection.execute(_DISMISS, {"check": self._wrapping.current.check_value})
        # The old wrappings are in no file of the table any more, for whoever has the old key.
        self._database.rewrite()
        return count

    def make_wrapped(self, connection: Connection, tenant_id: UUID, subject_id: UUID, key: bytes) -> bool:
        """Add a key that was made elsewhere, unless there is one or a tombstone; tell whether it was added."""
        wrapped = self._wrapping.current.wrap(key, tenant_id, subject_id)
        return self.add_wrapped(connection, tenant_id, subject_id, wrapped, self._wrapping.current.check_value)

    def admit(self, connection: Connection, check_value: bytes) -> bool:
        """Let keys be added as they are wrapped by the key with this check value; tell whether that opens here."""
        accepted = self._wrapping.find(check_value) is not None
        if accepted:
            connection.execute(_ADMIT, {"check": check_value})
        return accepted

    @staticmethod
    def add_wrapped(connection: Connection, tenant_id: UUID, subject_id: UUID, wrapped: bytes, by: bytes) -> bool:
        """Add a key as it is wrapped, unless there is one or a tombstone; tell whether it was added."""
        values = {"tenant": tenant_id, "subject": subject_id, "wrapped": wrapped, "by": by}
        return bool(connection.execute(_MAKE, values).rowcount)

    def _admit(self) -> None:
        with self._database.writing() as connection:
            # Of what was destroyed before, nothing is remembered here.
            self._seen = connection.execute(_TAKE_TURN).scalar_one()
            known = {bytes(one) for one in connection.execute(_KNOWN).scalars()}
            current = self._wrapping.current.check_value
            if known and not any(one.check_value in known for one in self._wrapping):
                raise ConfigurationError(
                    f"keyring.wrapping_key: is not the key that wraps the keys of {self.place}: set that one, or name "
                    "the right keyring.url"
                )
            if current not in known:
                connection.execute(_ADMIT, {"check": current})

    def _make(self, tenant_id: TenantId, subject_id: UUID, key: bytes | None = None) -> None:
        with self._database.writing() as connection:
            if subject_id != OWN and connection.execute(_OF_TENANT, {"tenant": tenant_id, "own": OWN}).scalar():
                raise KeyDestroyed("the key of the tenant was destroyed")
            if connection.execute(_READ, {"tenant": tenant_id, "subject": subject_id}).first() is None:
                self.make_wrapped(connection, tenant_id, subject_id, key or secrets.token_bytes(KEY_BYTES))

    def _read(self, tenant_id: TenantId, subject_id: UUID) -> bytes:
        with self._database.reading() as connection:
            row = connection.execute(_READ, {"tenant": tenant_id, "subject": subject_id}).first()
        if row is None:
            raise KeyLost(self.place, self.remedy)
        return self._unwrapped(tenant_id, subject_id, row)

    def _unwrapped(self, tenant_id: UUID, subject_id: UUID, row: Any) -> bytes:
        if row.wrapped is None:
            raise KeyDestroyed("the key was destroyed")
        wrapping = self._wrapping.find(bytes(row.wrapped_by))
        if wrapping is None:
            raise KeyMissing(self.place, "has a key that keyring.wrapping_key did not wrap", self.remedy)
        try:
            return wrapping.unwrap(bytes(row.wrapped), tenant_id, subject_id)
        except NotWrappedSo:
            raise KeyMissing(self.place, "has a key that was changed or moved", self.remedy) from None

    def _ask(self) -> None:
        """Forget the keys that other processes destroyed, when that was not looked at in the last seconds.

        Raises:
            KeyringUnavailable: when it has been away for longer than what is remembered may be believed.
        """
        now = clock.monotonic()
        if now - self._asked <= _ASKED_SECONDS:
            return
        # One thread asks; others go on with what is remembered as long as that may be believed.
        if not self._asking.acquire(blocking=now - self._asked > BELIEVED_SECONDS):
            return
        try:
            now = clock.monotonic()
            if now - self._asked <= _ASKED_SECONDS:
                return
            if now - self._failed > _AWAY_SECONDS:
                try:
                    with self._database.reading() as connection:
                        rows = connection.execute(_CHANGES, {"seen": self._seen}).all()
                except KeyringUnavailable:
                    self._failed = clock.monotonic()
                    if self._failed - self._asked > BELIEVED_SECONDS:
                        raise
                    return
                self._forget([(row.tenant_id, row.subject_id) for row in rows if row.tenant_id is not None])
                if rows[0].changes < self._seen:
                    # The database went back: nothing that is remembered is sure.
                    self._forget(None)
                self._seen, self._asked = rows[0].changes, now
            elif now - self._asked > BELIEVED_SECONDS:
                raise KeyringUnavailable(f"the keyring, {self.place}, does not answer; try again")
        finally:
            self._asking.release()

    def _forget(self, destroyed: list[_Known] | None) -> None:
        """Forget keys, a tenant's own with all of its subjects; None is everything."""
        if destroyed == []:
            return
        with self._lock:
            self._forgotten += 1
            if destroyed is None:
                self._ciphers.clear()
                self._secrets.clear()
                return
            tenants = {tenant_id for tenant_id, subject_id in destroyed if subject_id == OWN}
            for known in destroyed:
                self._ciphers.pop(known, None)
            if tenants:
                for one in [one for one in self._ciphers if one[0] in tenants]:
                    del self._ciphers[one]
                for secret in [one for one in self._secrets if one[0] in tenants]:
                    del self._secrets[secret]
