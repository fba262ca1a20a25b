"""Sealing of content: AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce, bound to the place it is stored in.

A sealed value is `version (1 byte) | nonce (12 bytes) | ciphertext and tag`. The place (tenant, table, row, column) is
the associated data, so that a value moved to another row or column does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.errors import KeyringUnavailable
from service.scope import TenantId

_VERSION = b"\x01"
_NONCE_BYTES = 12


class CannotOpen(KeyringUnavailable):
    """The value was not sealed for this place with this key, or was changed since."""

    def __init__(self, place: Place, why: str) -> None:
        super().__init__(
            f"{place.table}.{place.column}: a stored value {why}; restore the record and the keyring from backups that "
            "belong together"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value is stored."""

    tenant_id: TenantId
    table: str
    row_id: UUID
    column: str

    def associated_data(self) -> bytes:
        """Return the bytes that tie a sealed value to this place."""
        return b"\x00".join((self.tenant_id.bytes, self.table.encode(), self.row_id.bytes, self.column.encode()))


class Cipher:
    """Seals, opens and fingerprints values under one 256-bit key."""

    __slots__ = ("_gcm", "_key", "_secrets")

    def __init__(self, key: bytes) -> None:
        self._gcm = AESGCM(key)
        self._key = key
        self._secrets: dict[str, bytes] = {}

    def mac(self, value: bytes, purpose: str) -> bytes:
        """Return the HMAC-SHA256 of a value under a secret derived for the purpose (HKDF-SHA256, RFC 5869).

        Whoever destroys the key destroys with it every way to tell what was fingerprinted.
        """
        secret = self._secrets.get(purpose)
        if secret is None:
            secret = HKDF(SHA256(), 32, salt=None, info=f"memvault/{purpose}".encode()).derive(self._key)
            self._secrets[purpose] = secret
        return hmac.digest(secret, value, hashlib.sha256)

    def seal(self, plain: bytes, place: Place) -> bytes:
        """Return the sealed value; two calls with the same text give different bytes."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._gcm.encrypt(nonce, plain, place.associated_data())

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Return what was sealed.

        Raises:
            CannotOpen: if key, place or bytes are not the ones it was sealed with.
        """
        if sealed[:1] != _VERSION:
            raise CannotOpen(place, "was sealed in a form that this release does not know")
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._gcm.decrypt(nonce, body, place.associated_data())
        except InvalidTag:
            raise CannotOpen(place, "does not open with its key") from None

    def seal_json(self, value: Any, place: Place) -> bytes:
        """Seal a JSON value."""
        return self.seal(orjson.dumps(value), place)

    def open_json(self, sealed: bytes, place: Place) -> Any:
        """Open a JSON value."""
        return orjson.loads(self.open(sealed, place))
