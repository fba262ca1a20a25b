"""Fixtures of isolation: a running app and two tenants to attack, and an issuer of access tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from service.main import create_app
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, fresh_database, open_on
from tests.isolation.attack.calls import running
from tests.isolation.attack.lines import HOOK
from tests.isolation.attack.scene import Scene, World
from tests.isolation.issuer import Issuer
from tests.isolation.tokens import PUBLIC_URL, Open


@pytest.fixture(scope="session")
def world(
    postgres: Postgres, migrated: Postgres, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Services and a running app for all attacks of this process."""
    data_dir = tmp_path_factory.mktemp("attack")
    data_dir.chmod(0o711)
    (data_dir / "model").symlink_to(model_folder)
    with ExitStack() as stack:
        database = stack.enter_context(fresh_database(postgres))
        webhooks = {"allowed_hosts": [urlsplit(HOOK).hostname], "per_tenant": 1_000_000}
        services = open_on(database, data_dir, stack, audit={"matches_per_minute": 10_000}, webhooks=webhooks)
        superuser = stack.enter_context(psycopg.connect(database.admin, autocommit=True))
        yield World(services, superuser, stack.enter_context(running(create_app(services))))


@pytest.fixture
def scene(world: World) -> Scene:
    """Two tenants with the same data, of the test's own."""
    return Scene(world)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer."""
    with Issuer() as one:
        yield one


@pytest.fixture
def open_services(make_services: MakeServices, issuer: Issuer) -> Open:
    """Open services that trust the issuer, with the tenant `acme`; keyword arguments change `auth.oidc`."""

    def opened(*, cache_seconds: float = 0, more: dict[str, Any] | None = None, **oidc: Any) -> Services:
        auth = {"cache_seconds": cache_seconds, "oidc": {**issuer.oidc, "refetch_wait": 0, **oidc}}
        services = make_services(server={"public_url": PUBLIC_URL}, auth=auth, **(more or {}))
        services.installation.tenants.create("acme")
        return services

    return opened


@pytest.fixture
def trusting(open_services: Open) -> Services:
    """Services that trust the issuer and remember no credential."""
    return open_services()
