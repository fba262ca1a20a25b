"""Reads the credential that a request presents, the same for every face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SCHEMES: Final = ("bearer", "token")
#: Why a credential in the query of a URL is refused.
IN_URL: Final = "access_token: does not belong in a URL, where logs keep it; send it as 'Authorization: Bearer'"


def secret_of(headers: Mapping[str, str]) -> str | None:
    """Return the API key or access token of a request, or None.

    It stands in `Authorization`, after `Bearer` or `Token`, else in `X-API-Key`. The headers have lower-case names.
    """
    scheme, _, secret = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() in _SCHEMES and secret.strip():
        return secret.strip()
    return headers.get("x-api-key") or None
