"""Fixtures for the official clients: a served instance on this machine, and a guard against leaving it."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from service.main import create_app
from service.scope import TenantId
from service.wiring import Services
from tests.clients.npm_packages import NodePackages, NotInstalled, find
from tests.clients.serving import serving
from tests.conftest import MakeServices, principal_of


@pytest.fixture
def services(make_services: MakeServices) -> Services:
    """Services whose webhooks may name the host that the clients' tests name; nothing is sent without a worker."""
    return make_services(webhooks={"allowed_hosts": ["hooks.example.com"]})


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    """The URL of a served instance."""
    with serving(create_app(services)) as url:
        yield url


@pytest.fixture
def secret(services: Services, tenant: TenantId) -> str:
    """An admin key of the tenant."""
    _, secret = principal_of(services, tenant)
    return secret


@pytest.fixture
def http(url: str, secret: str) -> Iterator[Callable[..., httpx.Response]]:
    """Asks the served instance with the admin key, without any client in between."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Token {secret}"}, timeout=60) as client:
        yield client.request


@pytest.fixture(scope="session")
def node_packages() -> NodePackages:
    """Node with the official packages, or a skip that says why they are not there."""
    try:
        return find()
    except NotInstalled as error:
        pytest.skip(str(error))
