"""Fixtures: a served MCP face and keys for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from service.scope import TenantId
from service.wiring import Services
from tests.conftest import principal_of
from tests.integration.mcp.served import Wire, serve

MakeWire = Callable[..., Wire]


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    """The base URL of a served MCP face."""
    with serve(lambda: services, services.settings) as base:
        yield base


@pytest.fixture
def wire_of(services: Services, tenant: TenantId, url: str) -> MakeWire:
    """Make a wire with a new key: of the test's tenant, an admin key, unless told otherwise."""

    def make(*, role: str = "admin", users: frozenset[str] | None = None, of: TenantId = tenant) -> Wire:
        return Wire(url, principal_of(services, of, role=role, users=users)[1])

    return make


@pytest.fixture
def wire(wire_of: MakeWire) -> Wire:
    """A wire with an admin key."""
    return wire_of()
