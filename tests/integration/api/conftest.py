"""Fixtures of the HTTP face: the app on real services, with a key, called in the process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.main import create_app
from service.scope import TenantId
from service.wiring import Services
from tests.conftest import principal_of

MakeClient = Callable[..., TestClient]


@pytest.fixture
def app(services: Services) -> FastAPI:
    """The app on open services."""
    return create_app(services)


@pytest.fixture
def make_client(services: Services, tenant: TenantId, app: FastAPI) -> Iterator[MakeClient]:
    """Make clients with keys of the tenant; `key=None` sends none."""
    with ExitStack() as stack:

        def make(*, role: str = "admin", key: Any = "mint", users: frozenset[str] | None = None) -> TestClient:
            if key == "mint":
                _, key = principal_of(services, tenant, role=role, users=users)
            client = TestClient(app, raise_server_exceptions=False)
            if key is not None:
                client.headers["Authorization"] = f"Token {key}"
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    """A client with an admin key."""
    return make_client()


def assert_error(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Check that an answer is an error in the one shape, and return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"detail", "error", "code", "request_id"}
    assert all(isinstance(value, str) and value for value in body.values())
    assert body["detail"] == body["error"]
    assert body["request_id"] == answer.headers["x-request-id"]
    if code is not None:
        assert body["code"] == code
    return body
