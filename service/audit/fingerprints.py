"""Keyed HMACs of what was asked and said, so that a known value can be looked for in the trail and none read from it.

The key is that of the row's first subject (users stand first), so that destroying a subject's key destroys the ability
to match what was asked or said about it. A row without a subject uses a secret of the tenant.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from enum import StrEnum
from typing import Final
from uuid import UUID

from service.scope import TenantId
from service.storage.keyring import KeyDestroyed, Keyring

MAC_BYTES: Final = 32


class Kind(StrEnum):
    """What is fingerprinted; each kind has secrets of its own, so that a query is never taken for a text."""

    QUERY = "audit-queries"
    TEXT = "audit-texts"


class Fingerprints:
    """Makes the HMACs of a row."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def of(self, tenant_id: TenantId, subjects: Sequence[UUID], kind: Kind, value: str) -> bytes | None:
        """Return the HMAC-SHA256 of a value for a row with these subjects, None when the key was destroyed."""
        if not subjects:
            return hmac.digest(self._keyring.tenant_secret(tenant_id, kind), value.encode(), hashlib.sha256)
        try:
            return self._keyring.subject(tenant_id, subjects[0]).mac(value.encode(), kind)
        except KeyDestroyed:
            return None

    def of_texts(self, tenant_id: TenantId, subjects: Sequence[UUID], texts: Sequence[str]) -> bytes | None:
        """Return the HMACs of texts one behind the other, 32 bytes each; None for no text or a destroyed key."""
        macs = [self.of(tenant_id, subjects, Kind.TEXT, text) for text in texts]
        return b"".join(one for one in macs if one is not None) or None
