"""Promise 16: many tenants add rows and nothing else, and one at its limits leaves the others alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
from sqlalchemy import event

from service.scope import Limit
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.promises.faces import Connect

pytestmark = pytest.mark.promises


def things(database: Postgres) -> list[tuple[object, ...]]:
    """All tables, indexes, functions and roles of the database."""
    with psycopg.connect(database.admin) as connection:
        return connection.execute(
            "SELECT relname, relkind::text FROM pg_class UNION ALL SELECT proname, 'f' FROM pg_proc"
            " UNION ALL SELECT rolname, 'role' FROM pg_roles ORDER BY 1, 2"
        ).fetchall()


def add(client: httpx.Client, text: str, user: str = "alice") -> httpx.Response:
    """Add a memory verbatim."""
    body = {"messages": [{"role": "user", "content": text}], "user_id": user, "infer": False}
    return client.post("/v3/memories/add/", json=body)


def test_tenants_add_no_table_collection_or_index(services: Services, database: Postgres) -> None:
    """Ten thousand tenants add no table, collection or index: here a hundred of them do not, in one folder."""
    folder = services.settings.data_dir / "index"
    callers = [caller_of(services, services.installation.tenants.create(f"tenant-{n}").id) for n in range(2)]
    before = things(database), sorted(path.name for path in folder.iterdir())
    callers += [caller_of(services, services.installation.tenants.create(f"more-{n}").id) for n in range(98)]
    assert len({caller.principal.tenant_id for caller in callers}) == 100
    assert (things(database), sorted(path.name for path in folder.iterdir())) == before


def test_a_tenant_at_its_limits_leaves_another_alone(services: Services, database: Postgres, connect: Connect) -> None:
    """A tenant that is full or makes too many requests is refused; the other's calls all succeed meanwhile.

    What is refused costs no embedding, no transaction that writes, and for too many requests no query at all.
    """
    calm = connect(services, tenant="calm")
    services.installation.tenants.create("full")
    services.installation.tenants.set_limits("full", {Limit.MEMORIES: 1})
    full = connect(services, tenant="full")
    assert add(full, "the only one").status_code == 200
    services.installation.tenants.create("hasty")
    services.installation.tenants.set_limits("hasty", {Limit.REQUESTS_PER_SECOND: 1})
    hasty = connect(services, tenant="hasty")
    assert hasty.get("/v1/ping/").status_code == 200
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE rate_buckets SET at = now() + interval '1 hour'")

    with ThreadPoolExecutor(3) as pool:
        refused = pool.submit(lambda: [add(full, f"text {n}").status_code for n in range(30)])
        limited = pool.submit(lambda: [hasty.get("/v1/ping/").status_code for _ in range(60)])
        served = pool.submit(lambda: [add(calm, f"text {n}").status_code for n in range(15)])
        assert served.result() == [200] * 15
        assert refused.result() == [413] * 30
        assert limited.result() == [429] * 60
    found = calm.post("/v3/memories/search/", json={"query": "text", "threshold": 0.0, "top_k": 50}).json()
    assert len(found["results"]) == 15

    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        sent.append(statement)

    engine = services.installation.database._engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        assert add(full, "one more").status_code == 413
        assert not [one for one in sent if one.startswith(("INSERT INTO memories", "INSERT INTO audit"))]
    finally:
        event.remove(engine, "before_cursor_execute", note)
