"""Fixtures: services whose webhooks may reach a receiver on this machine, with a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.main import create_app
from service.scope import TenantId
from service.wiring import Services
from tests.conftest import MakeServices, principal_of
from tests.webhooks.receiver import Receiver, receiving

MakeApiClient = Callable[..., TestClient]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver."""
    with receiving() as one:
        yield one


@pytest.fixture
def services(make_services: MakeServices, receiver: Receiver) -> Services:
    """Services that may notify the receiver, three times at most and without a pause."""
    allowed = {"allowed_hosts": [receiver.host], "allowed_networks": ["127.0.0.0/8"]}
    settings: dict[str, Any] = {**allowed, "attempts": 3, "retry_wait": 0.0, "timeout": 5.0, "per_tenant": 3}
    return make_services(worker=True, webhooks=settings, queue={"poll_interval": 0.1})


@pytest.fixture
def api(services: Services, tenant: TenantId) -> MakeApiClient:
    """Make clients of the HTTP face with a new key: of the tenant, an admin key, unless told otherwise."""
    app = create_app(services)

    def make(*, role: str = "admin", users: frozenset[str] | None = None, of: TenantId = tenant) -> TestClient:
        client = TestClient(app, raise_server_exceptions=False)
        client.headers["Authorization"] = f"Token {principal_of(services, of, role=role, users=users)[1]}"
        return client

    return make


@pytest.fixture
def client(api: MakeApiClient) -> TestClient:
    """A client with an admin key."""
    return api()
