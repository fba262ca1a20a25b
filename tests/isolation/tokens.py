"""What the tests of access tokens share: the settings, and authenticating as a face does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.errors import Unauthenticated
from service.scope import Principal
from service.wiring import Services

PUBLIC_URL = "http://127.0.0.1:8080"
REST = {"aud": PUBLIC_URL}
Open = Callable[..., Services]


def authenticate(services: Services, token: str, face: str = "mcp") -> Principal:
    """Authenticate as a face does."""
    return services.authenticator.authenticate(token, request_id="r", client="c", face=face)


def refusal(services: Services, token: str, face: str = "mcp") -> str:
    """What a token is refused with."""
    with pytest.raises(Unauthenticated) as caught:
        authenticate(services, token, face)
    assert token not in caught.value.detail
    return caught.value.detail
