"""A dry run of the retention job names exactly the rows that the real run deletes."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from service import clock
from service.wiring import Services
from tests.conftest import Postgres
from tests.process.memvault import add
from tests.promises.faces import Connect

pytestmark = pytest.mark.promises


def ids(database: Postgres) -> set[str]:
    """The memories that there are."""
    with psycopg.connect(database.admin) as connection:
        return {str(row[0]) for row in connection.execute("SELECT id FROM memories")}


def test_a_dry_run_names_what_the_real_run_deletes(services: Services, database: Postgres, connect: Connect) -> None:
    """A dry run of the retention job names exactly the rows that the real run deletes; it never deletes more than the
    rules say, survives a crash and reports each batch.
    """
    client = connect(services)
    old = set(add(client, *(f"old {number}" for number in range(4))))
    young = set(add(client, "young"))
    with psycopg.connect(database.admin, autocommit=True) as connection:
        past = clock.now() - timedelta(days=40)
        connection.execute("UPDATE memories SET created_at = %s WHERE id = ANY(%s::uuid[])", [past, sorted(old)])
    assert client.post("/v1/retention/rules/", json={"name": "old", "age": "P30D"}).status_code == 201
    dry = client.post("/v1/retention/runs/", json={"dry_run": True}).json()
    named = {one["id"] for one in client.get(f"/v1/retention/runs/{dry['id']}/items/").json()["results"]}
    assert named == old
    assert ids(database) == old | young
    real = client.post("/v1/retention/runs/", json={}).json()
    # What a worker that was killed in between, and one that takes the job again, do.
    for _ in range(2):
        services.retention_jobs.run(str(services.installation.tenants.get("acme").id))
    assert ids(database) == young
    done = client.get(f"/v1/retention/runs/{real['id']}/").json()
    assert (done["status"], done["deleted"], done["seen"]) == ("done", 4, 5)
    assert {one["id"] for one in client.get(f"/v1/retention/runs/{real['id']}/items/").json()["results"]} == old
    rows = client.get("/v1/audit/?event=memories:forgotten").json()["results"]
    assert [set(row["target_ids"]) for row in rows] == [old]
