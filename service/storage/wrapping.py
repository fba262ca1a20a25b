"""The wrapping key of a keyring in a database: what opens its keys, and is not kept with them."""

from __future__ import annotations

import secrets
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_CHECK_BYTES: Final = 16


class NotWrappedSo(Exception):
    """The wrapped key was not wrapped by this key for this place."""


@dataclass(frozen=True, slots=True)
class WrappingKey:
    """One wrapping key: AES-256-GCM, each wrapped key bound to the tenant and subject that it is of."""

    #: Tells the key from others without telling it, so that a wrong one is found before anything is opened.
    check_value: bytes
    _gcm: AESGCM = field(repr=False)

    @classmethod
    def of(cls, encoded: str) -> WrappingKey:
        """Return the wrapping key that is given as a setting, which the settings have checked."""
        key = b64decode(encoded.strip(), validate=True)
        return cls(_derived(key, b"check")[:_CHECK_BYTES], AESGCM(_derived(key, b"wrap")))

    def wrap(self, key: bytes, tenant_id: UUID, subject_id: UUID) -> bytes:
        """Wrap the key of a subject."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._gcm.encrypt(nonce, key, tenant_id.bytes + subject_id.bytes)

    def unwrap(self, wrapped: bytes, tenant_id: UUID, subject_id: UUID) -> bytes:
        """Return the key that was wrapped.

        Raises:
            NotWrappedSo: when it was wrapped by another key, or for another subject, or was changed.
        """
        try:
            nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
            return self._gcm.decrypt(nonce, sealed, tenant_id.bytes + subject_id.bytes)
        except (InvalidTag, ValueError):
            raise NotWrappedSo from None


@dataclass(frozen=True, slots=True)
class WrappingKeys:
    """The key that wraps, and while it is being changed the one that opens as well."""

    current: WrappingKey
    second: WrappingKey | None = None

    def __iter__(self) -> Iterator[WrappingKey]:
        yield self.current
        if self.second is not None:
            yield self.second

    def find(self, check_value: bytes) -> WrappingKey | None:
        """Return the key with a check value, or None when it is another."""
        return next((one for one in self if one.check_value == check_value), None)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"memvault/keyring/" + purpose).derive(key)
