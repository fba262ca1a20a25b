"""Shared fixtures: real Postgres, a real index and the real model, started once and given out fresh to each test."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import signal
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psutil
import psycopg
import pytest
from hypothesis.internal.conjecture import providers
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service import clock, wiring
from service.auth.keys import Grant
from service.embeddings.minilm import MiniLM
from service.migrations.keyring import upgrade_keyring
from service.migrations.runner import upgrade
from service.policy.table import ROLES
from service.scope import Caller, Principal, TenantId
from service.settings import load_settings
from service.storage.embedded import EmbeddedPostgres, ensure_database
from service.wiring import adapters
from tests.canaries import no_canary_in_a_log, watched_logs  # noqa: F401 - fixtures of every test
from tests.isolation.attack.tally import pytest_terminal_summary  # noqa: F401 - a hook of pytest

#: Bytes of memory from which on the tests keep their files in it: what they wait for on a disk is its acknowledgements.
_ENOUGH_MEMORY = 12 * 1024**3
_IN_MEMORY = Path("/dev/shm")
# Before anything asks where temporary files go; the processes that run the tests take it over.
if (
    "TMPDIR" not in os.environ
    and os.access(_IN_MEMORY, os.W_OK)
    and min(shutil.disk_usage(_IN_MEMORY).free, psutil.virtual_memory().available) >= _ENOUGH_MEMORY
):
    os.environ["TMPDIR"] = str(_IN_MEMORY)
    tempfile.tempdir = None

# A shell that runs a job in the background lets it ignore Ctrl-C, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis also draws constants from whatever code is imported, `derandomize` or not: what a test tries would depend
# on the tests beside it, and one that passes alone could fail in the whole suite.
providers._get_local_constants = lambda: providers._local_constants

TEST_DATABASE_URL = "MEMVAULT_TEST_DATABASE_URL"
#: Of this process: several may run tests on one server.
_TEMPLATE = f"memvault_template_{os.getpid()}_{clock.new_random_id().hex[:8]}"


@dataclass(frozen=True)
class Postgres:
    """A server on which a test can make databases: `admin` may, `owner` and `app` are the service's own roles."""

    admin: str
    owner: str
    app: str

    @property
    def urls(self) -> dict[str, str]:
        """The database's URLs as a configuration file has them."""
        return {"url": _url(self.app), "owner_url": _url(self.owner)}

    def on(self, database: str) -> Postgres:
        """The same roles on another database."""
        return Postgres(*(make_conninfo(dsn, dbname=database) for dsn in (self.admin, self.owner, self.app)))


def pytest_collection_finish() -> None:
    """Keep the collector from looking through ten thousand tests, and all that they import, for the rest of the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres: the one named by the environment, else the embedded one."""
    if url := os.environ.get(TEST_DATABASE_URL):
        yield _roles_on(url)
        return
    # Not pytest's folder, which is 0700: as root, the server is another user and must be able to pass through.
    folder = Path(tempfile.mkdtemp(prefix="memvault-test-"))
    folder.chmod(0o711)
    server_folder = folder / "postgres"
    # Durability is not what these tests are about, except those that start a server of their own.
    embedded = EmbeddedPostgres(server_folder, settings={"fsync": "off", "max_connections": "200"})
    server = embedded.start()
    try:
        credentials = ensure_database(server, folder=server_folder)
        yield Postgres(server.superuser_dsn(), credentials.owner_dsn, credentials.app_dsn)
    finally:
        embedded.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> Iterator[Postgres]:
    """A template database with the schema of this release."""
    _make_database(postgres, _TEMPLATE, "template0")
    template = postgres.on(_TEMPLATE)
    upgrade(template.owner, app_role="memvault_app")
    yield template
    with psycopg.connect(postgres.admin, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_TEMPLATE)))


@pytest.fixture
def database(postgres: Postgres, migrated: Postgres) -> Iterator[Postgres]:
    """A database of the test's own, with the schema."""
    with fresh_database(postgres) as made:
        yield made


@contextmanager
def fresh_database(postgres: Postgres, *, empty: bool = False) -> Iterator[Postgres]:
    """Lend a database: an empty one, or one with the schema, whose template is there already."""
    name = f"test_{clock.new_id().hex}"
    _make_database(postgres, name, "template0" if empty else _TEMPLATE)
    yield postgres.on(name)
    with psycopg.connect(postgres.admin, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the model's graph is written once for all tests."""
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="session", autouse=True)
def model_of_a_folder() -> Iterator[None]:
    """Open the model of a folder once: it takes 0.2 s of a core, and thousands of tests open services."""
    opened = cache(MiniLM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapters, "MiniLM", lambda folder, *, threads: opened(folder.resolve(), threads=threads))
        yield


@pytest.fixture
def keyring_settings(postgres: Postgres) -> Iterator[dict[str, str]]:
    """The settings `keyring.…` of a keyring in a database of the test's own."""
    with fresh_database(postgres, empty=True) as made:
        upgrade_keyring(made.urls["owner_url"])
        yield {"url": made.urls["owner_url"], "wrapping_key": b64encode(os.urandom(32)).decode()}


MakeServices = Callable[..., wiring.Services]


@pytest.fixture
def data_dir(tmp_path: Path, model_folder: Path) -> Path:
    """A data folder whose model is there already."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o711)
    (folder / "model").symlink_to(model_folder)
    return folder


@pytest.fixture
def make_services(database: Postgres, data_dir: Path) -> Iterator[MakeServices]:
    """Build services on the test's own database, index and keyring; flags are settings, `worker` runs the queue."""
    with ExitStack() as stack:

        def make(*, worker: bool = False, **flags: Any) -> wiring.Services:
            folder = flags.pop("data_dir", data_dir)
            return open_on(database, folder, stack, worker=worker, **flags)

        yield make


@pytest.fixture
def services(make_services: MakeServices) -> wiring.Services:
    """Services with default settings: no LLM, no worker."""
    return make_services()


@pytest.fixture
def tenant(services: wiring.Services) -> TenantId:
    """A tenant."""
    return services.installation.tenants.create("acme").id


@pytest.fixture
def caller(services: wiring.Services, tenant: TenantId) -> Caller:
    """A caller with an admin key of the tenant."""
    return caller_of(services, tenant, owner="ada@example.org")


def caller_of(
    services: wiring.Services,
    tenant_id: TenantId,
    *,
    role: str = "admin",
    users: frozenset[str] | None = None,
    owner: str | None = None,
) -> Caller:
    """Mint a key and return a caller with it."""
    principal, _ = principal_of(services, tenant_id, role=role, users=users, owner=owner)
    return Caller(principal, request_id="test", client="pytest")


def principal_of(
    services: wiring.Services,
    tenant_id: TenantId,
    *,
    role: str = "admin",
    users: frozenset[str] | None = None,
    owner: str | None = None,
) -> tuple[Principal, str]:
    """Mint a key and return its principal and the secret."""
    grant = Grant(ROLES[role], users=users, owner=owner)
    minted = services.installation.keys.mint_for_installation(tenant_id, grant)
    principal = services.installation.keys.find_principal(minted.secret)
    assert principal is not None
    return principal, minted.secret


def open_on(
    database: Postgres, data_dir: Path, stack: ExitStack, /, *, worker: bool = False, **flags: Any
) -> wiring.Services:
    """Open services on a database, until the stack closes; flags are settings."""
    settings = load_settings(environ={}, flags={"data_dir": data_dir, **flags})
    connections = wiring.Connections(database.app, database.owner)
    installation = wiring.open_installation(settings, connections, stack)
    services = wiring.open_services(installation, stack)
    if worker:
        wiring.start_worker(services, stack)
    return services


def _make_database(postgres: Postgres, name: str, template: str) -> None:
    with psycopg.connect(postgres.admin, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER memvault_owner TEMPLATE {} ENCODING 'UTF8'").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        connection.execute(
            sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO memvault_app").format(sql.Identifier(name))
        )


def _url(dsn: str) -> str:
    """Return a connection string as a URL, the folder of a socket included."""
    parts = conninfo_to_dict(dsn)
    user, password, name = (quote(str(parts.pop(key)), safe="") for key in ("user", "password", "dbname"))
    return f"postgresql://{user}:{password}@/{name}?{urlencode(parts)}"


def _roles_on(url: str) -> Postgres:
    """Make the service's roles on a server whose superuser the environment names."""
    # The same for all processes that run tests on this server: roles are the server's, not a database's.
    password = hashlib.sha256(url.encode()).hexdigest()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(7)")
        for role in ("memvault_owner", "memvault_app"):
            exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
            verb = sql.SQL("ALTER" if exists else "CREATE")
            connection.execute(
                sql.SQL("{} ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD {}").format(
                    verb, sql.Identifier(role), sql.Literal(password)
                )
            )
    roles = [make_conninfo(url, user=role, password=password) for role in ("memvault_owner", "memvault_app")]
    return Postgres(url, *roles)
