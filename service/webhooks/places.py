"""Seals and opens what is kept of a webhook: its name, URL and secret, under the tenant's key."""

from __future__ import annotations

from uuid import UUID

from service.scope import Scope
from service.storage.encryption import Cipher, Place


def sealed(cipher: Cipher, scope: Scope, webhook_id: UUID, column: str, value: str) -> bytes:
    """Return a value sealed for its column."""
    return cipher.seal(value.encode(), _place(scope, webhook_id, column))


def opened(cipher: Cipher, scope: Scope, webhook_id: UUID, column: str, value: bytes) -> str:
    """Return what was sealed."""
    return cipher.open(value, _place(scope, webhook_id, column)).decode()


def _place(scope: Scope, webhook_id: UUID, column: str) -> Place:
    return Place(scope.tenant_id, "webhooks", webhook_id, column)
