"""An installation whose trail is written and sealed by hand, without index and models."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from service import clock, wiring
from service.audit.assembly import Sealing
from service.audit.chain import read_chain
from service.audit.events import AuditEvent, Outcome
from service.audit.ledger import StoredCheckpoints
from service.audit.lines import stored_sections
from service.audit.sinks.folder import CheckpointFiles
from service.audit.verify import Report, Verifier
from service.scope import TenantId, installation_caller
from service.settings import load_settings
from tests.conftest import Postgres


@dataclass
class House:
    """An installation with its sealing, a few tenants, and a superuser's view of its database."""

    installation: wiring.Installation
    sealing: Sealing
    tenants: list[TenantId]
    postgres: Postgres
    folder: Path

    def write(self, tenant_id: TenantId, count: int = 1) -> None:
        """Write rows, each in a transaction of its own."""
        for _ in range(count):
            caller = installation_caller(tenant_id)
            with self.installation.database.transaction(caller.scope) as connection:
                self.installation.trail.write(
                    connection,
                    caller,
                    random.choice((AuditEvent.KEY_REVOKED, AuditEvent.SERVICE_PINGED)),
                    outcome=random.choice(list(Outcome)),
                    targets=[clock.new_id() for _ in range(random.randrange(3))],
                )

    def seal(self) -> int:
        """Seal until nothing is left, deliver, and return the newest checkpoint's number."""
        while self.sealing.keeper.round(full=True).checkpoint is not None:
            pass
        reached = self.sealing.keeper.deliver()
        return max(reached.values(), default=0)

    def verify(self, *, exported: bool = True, only: UUID | None = None) -> Report:
        """Verify the database, with what the folder has."""
        outside = CheckpointFiles(self.folder) if exported else ()
        chain = read_chain(outside, StoredCheckpoints(self.sealing.ledger), self.sealing.trusted)
        verifier = Verifier(chain)
        tenants = wiring.audited_tenants(self.installation)
        for section in stored_sections(self.installation.database, self.sealing.ledger, tenants):
            if only in (None, section.tenant_id):
                verifier.tenant(section.tenant_id, section.base, section.lines)
        return verifier.report(only=only)

    def lines(self, tenant_id: TenantId) -> list[bytes]:
        """The canonical rows of a tenant."""
        (section,) = stored_sections(self.installation.database, self.sealing.ledger, [tenant_id])
        return list(section.lines)

    def superuser(self, *statements: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Run statements as a superuser, past every policy and trigger; return the rows of the last."""
        with psycopg.connect(self.postgres.admin, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                cursor = connection.execute(statement.encode(), parameters)
                rows = cursor.fetchall() if cursor.description else []
            return rows


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(database: Postgres, tmp_path: Path) -> Iterator[MakeHouse]:
    """Open an installation on the test's database; flags are settings. Opened again it is the same one restarted."""
    with ExitStack() as stack:

        def make(*, tenants: int = 2, maintenance: bool = False, **flags: Any) -> House:
            data_dir = tmp_path / "data"
            data_dir.mkdir(exist_ok=True)
            settings = load_settings(environ={}, flags={"data_dir": data_dir, **flags})
            dsn = database.admin.replace("user=postgres", "user=memvault_maintenance") if maintenance else None
            connections = wiring.Connections(database.app, database.owner, dsn)
            installation = wiring.open_installation(settings, connections, stack)
            known = installation.tenants.list()
            while len(known) < tenants:
                known.append(installation.tenants.create(f"tenant-{len(known)}"))
            sealing = wiring.seal_trail(installation)
            return House(installation, sealing, [one.id for one in known], database, data_dir / "checkpoints")

        yield make


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    """A house with three tenants, some rows, four checkpoints and nothing unsealed."""
    made = make_house(tenants=3)
    for _ in range(4):
        for tenant_id in made.tenants:
            made.write(tenant_id, random.randint(1, 12))
        made.seal()
    return made


@pytest.fixture
def storage() -> Iterator[tuple[str, Any]]:
    """An S3 emulator with a bucket whose objects can be locked: its address, and a client."""
    boto3 = pytest.importorskip("boto3")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    # Every emulator of the process has the same buckets.
    httpx.post(f"{url}/moto-api/reset").raise_for_status()
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket="trail", ObjectLockEnabledForBucket=True)
    yield url, client
    client.close()
    server.stop()
