"""Fixtures for the official clients: a served instance on this machine, and a guard against leaving it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import httpx
import psycopg
import pytest

from service.main import create_app
from service.records import SubjectNames
from service.retention.holds import NewHold
from service.scope import Limit, TenantId
from service.wiring import Services
from tests.clients.npm_packages import NodePackages, NotInstalled, find
from tests.clients.serving import serving
from tests.conftest import MakeServices, Postgres, caller_of, principal_of

# Before a test's file imports Mem0, which reads both then: it would call home, and write to the home folder. The folder
# is removed with the process.
MEM0_HOME = TemporaryDirectory(prefix="mem0-")
os.environ["MEM0_TELEMETRY"] = "false"
os.environ.setdefault("MEM0_DIR", MEM0_HOME.name)


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


@pytest.fixture
def hold_user(services: Services, tenant: TenantId) -> Callable[[str], None]:
    """Place a legal hold, by the name of `case-1`, on what belongs to a user."""

    def place(user: str) -> None:
        officer = caller_of(services, tenant, role="compliance_officer", owner="ada@example.org")
        hold = NewHold("case-1", "a court asked", subjects=SubjectNames(user_id=user), where=None, memory_ids=())
        services.installation.holds.place(officer, officer.scope, hold)

    return place


@dataclass(frozen=True)
class Busy:
    """A tenant that may ask twice a second, as clients do when they are made. From `stop` on its bucket stays empty."""

    secret: str
    stop: Callable[[], None]


@pytest.fixture
def busy(services: Services, database: Postgres) -> Busy:
    """A tenant of few requests."""
    tenant = services.installation.tenants.create("busy").id
    services.installation.tenants.set_limits(str(tenant), {Limit.REQUESTS_PER_SECOND: 2})

    def stop() -> None:
        with psycopg.connect(database.admin, autocommit=True) as connection:
            # It fills no more: as if it had been filled in the future.
            connection.execute("UPDATE rate_buckets SET at = now() + interval '1 hour'")

    return Busy(principal_of(services, tenant)[1], stop)


@pytest.fixture(scope="session")
def node_packages() -> NodePackages:
    """Node with the official packages, or a skip that says why they are not there."""
    try:
        return find()
    except NotInstalled as error:
        pytest.skip(str(error))
