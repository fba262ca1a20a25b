"""Signs what is sent as Standard Webhooks has it: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

_PREFIX: Final = "whsec_"
_BYTES: Final = 32


def new_secret() -> str:
    """Return a new secret: a recognisable prefix and 256 random bits."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode("ascii")


def signed_headers(secret: str, delivery_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers by which a receiver knows that a body is ours, and from when."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    said = f"{delivery_id}.{timestamp}.".encode("ascii") + body
    signature = base64.b64encode(hmac.digest(key, said, hashlib.sha256)).decode("ascii")
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
