"""The HTTP face over services in the test's process, and clients with keys for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fastapi.testclient import TestClient

from service.main import create_app
from service.wiring import Services
from tests.conftest import principal_of

Connect = Callable[..., TestClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a client with a new admin key, by default of a tenant named `acme`, which is made when it is missing."""
    with ExitStack() as stack:

        def make(
            services: Services, *, tenant: str = "acme", role: str = "admin", **more: frozenset[str]
        ) -> TestClient:
            tenants = services.installation.tenants
            found = tenants.find(tenant) or tenants.create(tenant)
            _, secret = principal_of(services, found.id, role=role, **more)
            # On an address of this machine, as the MCP face wants it.
            client = TestClient(create_app(services), base_url="http://127.0.0.1", raise_server_exceptions=False)
            client.headers["Authorization"] = f"Token {secret}"
            return stack.enter_context(client)

        yield make
