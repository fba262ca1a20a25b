"""A database that is replaced by an earlier state of it under running services and workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from service import wiring
from service.audit.continuity import Continuity
from service.errors import Unavailable
from service.main import create_app
from service.records import Message, NewMemories, SubjectNames
from service.retention.ledger import ErasureKind, Target
from service.scope import Caller
from service.storage.database import Database
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of, open_on, principal_of
from tests.integration.audit_integrity.conftest import House

pytestmark = pytest.mark.integration

#: A seal and a look take a second each; what is more is for a busy machine.
SECONDS: Final = 20.0


class States:
    """The states of a database that take its name in turn, as they do in a restore under whoever is connected."""

    def __init__(self, database: Postgres, server: Postgres) -> None:
        self.name = str(conninfo_to_dict(database.admin)["dbname"])
        self._server = server.admin
        self._kept: list[str] = []

    def keep(self) -> str:
        """Copy the database as it is now, and return the name of the copy."""
        name = f"{self.name}_{len(self._kept)}"
        self._kept.append(name)
        self._alone(sql.SQL("CREATE DATABASE {} TEMPLATE {}"), name, self.name)
        return name

    def put(self, state: str, *, aside: str) -> None:
        """Let a state take the name, and put what has it now aside."""
        self._kept = [aside if one == state else one for one in self._kept]
        self._alone(sql.SQL("ALTER DATABASE {} RENAME TO {}"), self.name, aside)
        self._run(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(aside)))
        self._run(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(state), sql.Identifier(self.name)))

    def remove(self) -> None:
        """Remove all that have not the name."""
        for name in self._kept:
            self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _alone(self, statement: sql.SQL, *names: str) -> None:
        here = sql.Identifier(self.name)
        self._run(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(here))
        self._run(
            sql.SQL("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {}").format(
                sql.Literal(self.name)
            )
        )
        self._run(statement.format(*map(sql.Identifier, names)))
        if self.name in names[1:]:
            self._run(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(here))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture
def states(database: Postgres, postgres: Postgres) -> Iterator[States]:
    """The states of the test's own database."""
    made = States(database, postgres)
    yield made
    made.remove()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What closes before the states are removed."""
    with ExitStack() as made:
        yield made


def eventually(ask: Callable[[], bool]) -> None:
    """Return once it is so; fail when it does not become so in time."""
    until = time.monotonic() + SECONDS
    while not ask():
        assert time.monotonic() < until
        time.sleep(0.05)


def add(services: Services, caller: Caller, text: str, user: str) -> str:
    """Add a memory and return its id."""
    new = NewMemories([Message("user", text)], SubjectNames(user_id=user), {}, infer=False)
    return str(services.adds.add(caller, caller.scope, new).results[0].memory_id)


def head(database: Postgres) -> int:
    """The newest checkpoint in the database."""
    with psycopg.connect(database.admin) as connection:
        row = connection.execute("SELECT coalesce(max(number), 0) FROM audit_checkpoints").fetchone()
    assert row is not None
    return int(row[0])


def begun(database: Postgres) -> int:
    """How often erasures that are in the queue were begun."""
    with psycopg.connect(database.admin) as connection:
        query = "SELECT coalesce(sum(attempts), 0) FROM procrastinate_jobs WHERE task_name = 'erase'"
        [(count,)] = connection.execute(query).fetchall()
    return int(count)


def memories(database: Postgres) -> set[str]:
    """The ids of all memories in the record."""
    with psycopg.connect(database.admin) as connection:
        return {one for (one,) in connection.execute("SELECT id::text FROM memories").fetchall()}


def answers(app: TestClient, secret: str, memory_id: str) -> dict[str, int]:
    """What the faces say to a key, and the probe to anybody."""
    told = {"Authorization": f"Token {secret}"}
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    return {
        "rest": app.get("/v1/ping/", headers=told).status_code,
        "delete": app.delete(f"/v1/memories/{memory_id}/", headers=told).status_code,
        "mcp": app.post(
            "/mcp", json=message, headers=told | {"Accept": "application/json, text/event-stream"}
        ).status_code,
        "readyz": app.get("/readyz").status_code,
    }


def served(services: Services, stack: ExitStack) -> TestClient:
    """The faces of services; the address is one that the MCP face lets in."""
    app = create_app(services)
    return stack.enter_context(TestClient(app, base_url="http://localhost", raise_server_exceptions=False))


@pytest.mark.timeout(300)
def test_services_refuse_and_workers_hold_back_what_was_put_back_under_them(
    database: Postgres, states: States, stack: ExitStack, data_dir: Path, tmp_path: Path
) -> None:
    """The service signs nothing, as those of a cluster: it hears of it from the database alone."""
    service = open_on(database, data_dir, stack, queue={"in_process": False})
    assert service.keepers == []
    tenant = service.installation.tenants.create("acme").id
    caller = caller_of(service, tenant)
    revoked, secret = principal_of(service, tenant)
    doomed, kept = add(service, caller, "alice keeps bees", "alice"), add(service, caller, "bob keeps goats", "bob")
    service.erasures.request(caller, caller.scope, Target(ErasureKind.USER, "alice"))
    wiring.seal_trail(service.installation).keeper.round(full=True)
    earlier = states.keep()

    # The worker carries the erasure out, and signs; the other key is revoked.
    other = tmp_path / "worker"
    other.mkdir(mode=0o711)
    for name in ("model", "keys"):
        (other / name).symlink_to((data_dir / name).resolve())
    worker = open_on(database, other, stack, worker=True, audit={"seal_interval": 0.2}, queue={"poll_interval": 0.2})
    eventually(lambda: memories(database) == {kept})
    service.installation.keys.revoke_for_installation(tenant, revoked.id)
    app = served(service, stack)
    assert answers(app, secret, kept)["rest"] == 401
    time.sleep(1.5)
    assert head(database) > 1

    states.put(earlier, aside=f"{earlier}_later")
    eventually(lambda: app.get("/readyz").status_code == 503 and service.continuity.problem is not None)
    assert set(answers(app, secret, kept).values()) == {503}
    [part] = [part for part in service.readiness() if part.name == "audit sealing"]
    assert part.blocks
    assert "is not in the database" in str(part.reason)
    # The erasure waits in it once more, and the worker takes it up and lets go of it.
    eventually(lambda: begun(database) > 0)
    assert memories(database) == {doomed, kept}
    with pytest.raises(Unavailable):
        wiring.check_database(worker)

    # The right one is put back: all goes on.
    states.put(f"{earlier}_later", aside=earlier)
    eventually(lambda: answers(app, secret, kept) == {"rest": 401, "delete": 401, "mcp": 401, "readyz": 200})
    eventually(lambda: worker.continuity.problem is None and not worker.keepers[0].changed)


def test_without_a_worker_and_without_anything_signed_nothing_is_refused(make_services: MakeServices) -> None:
    services = make_services(queue={"in_process": False})
    services.continuity.look()
    wiring.check_database(services)
    assert services.continuity.problem is None


def test_a_restore_that_was_declared_meanwhile_is_noticed_all_the_same(house: House) -> None:
    """The numbers go on behind those that are void: what counts is whether the one that was seen is there."""
    with closing(Database(house.postgres.app, pool_size=1)) as database:
        seen = Continuity(database)
        seen.look()
        house.superuser(
            "UPDATE audit_checkpoints SET body = body || ' ' WHERE number = 4",
            "INSERT INTO audit_checkpoints SELECT number + 1, at, body, signatures FROM audit_checkpoints"
            " ORDER BY number DESC LIMIT 1",
        )
        seen.look()
        assert "checkpoint 4" in str(seen.problem)
