"""Reads and refusals are in the trail."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from service.auth.keys import Grant
from service.policy.table import ROLES
from service.wiring import Services
from tests.conftest import Postgres
from tests.process.memvault import add, search
from tests.promises.faces import Connect

pytestmark = pytest.mark.promises


def trail(database: Postgres) -> list[dict[str, Any]]:
    """Return the whole trail of all tenants, the oldest row first."""
    with psycopg.connect(database.admin, row_factory=dict_row) as connection:
        return connection.execute("SELECT * FROM audit ORDER BY seq").fetchall()


def test_reads_and_refusals_are_in_the_trail(services: Services, database: Postgres, connect: Connect) -> None:
    """Reads and refusals are in the trail: who, acting for whom, through which connector, which ids came back. Never
    memory text.
    """
    client = connect(services)
    tenant = services.installation.tenants.get("acme")
    grant = Grant(ROLES["reader"], users=frozenset({"alicecanary"}), connector="crm")
    minted = services.installation.keys.mint_for_installation(tenant.id, grant)
    agent = {"Authorization": f"Token {minted.secret}", "User-Agent": "my-agent/1.0"}
    ids = [UUID(one) for one in add(client, "textcanary one", "textcanary two", user="alicecanary")]
    start = len(trail(database))

    client.headers.update(agent)
    found = search(client, "querycanary textcanary", user="alicecanary")
    assert {UUID(hit["id"]) for hit in found} == set(ids)
    client.get(f"/v1/memories/{ids[0]}/")
    missing = UUID(int=7)
    assert client.get(f"/v1/memories/{missing}/").status_code == 404
    assert client.delete(f"/v1/memories/{ids[0]}/").status_code == 403
    refused = client.post("/v3/memories/search/", json={"query": "x", "filters": {"user_id": "bobcanary"}})
    assert refused.status_code == 403

    rows = trail(database)[start:]
    assert [(row["event"], row["outcome"]) for row in rows] == [
        ("memory:searched", "done"),
        ("memory:read", "done"),
        ("memory:read", "not_found"),
        ("access:denied", "refused"),
        ("access:denied", "refused"),
    ]
    for row in rows:
        assert (row["tenant_id"], row["principal_id"], row["connector"]) == (tenant.id, minted.id, "crm")
        assert (row["client"], row["face"]) == ("my-agent/1.0", "rest")
        assert row["request_id"]
    assert set(rows[0]["result_ids"]) == set(ids)
    assert rows[0]["query_mac"] is not None
    assert [row["target_ids"] for row in rows[1:4]] == [[ids[0]], [missing], [ids[0]]]
    assert rows[4]["request_id"] == refused.json()["request_id"]
    told = str(trail(database))
    for canary in ("textcanary", "querycanary", "alicecanary", "bobcanary"):
        assert canary not in told
