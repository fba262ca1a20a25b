"""What the database counts of a tenant's memories is after a restore what it was before, and it counts on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.records import Message, NewMemories, SubjectNames
from service.scope import Limit, TenantId
from service.storage.dumping import dump, restore
from service.wiring import Services
from tests.conftest import Postgres, caller_of, fresh_database

pytestmark = pytest.mark.integration

#: What a tenant may and has: its limits, memories and bytes as they are counted and as they are, days of the LLM.
_STATE = """
SELECT name, limits,
    (SELECT (coalesce(sum(memories), 0)::bigint, coalesce(sum(bytes), 0)::bigint)::text
        FROM usage WHERE tenant_id = tenants.id),
    (SELECT (count(*), coalesce(sum(octet_length(content)), 0)::bigint)::text
        FROM memories WHERE tenant_id = tenants.id),
    (SELECT array_agg((day, calls, tokens)::text) FROM llm_usage WHERE tenant_id = tenants.id)
FROM tenants ORDER BY name
"""


def state(database: Postgres) -> list[tuple[Any, ...]]:
    """Every tenant's limits with what it has used."""
    with psycopg.connect(database.admin) as connection:
        return connection.execute(_STATE).fetchall()


@pytest.mark.parametrize("owner", [True, False], ids=["embedded", "server"])
def test_nothing_is_counted_twice(
    owner: bool, services: Services, tenant: TenantId, database: Postgres, postgres: Postgres, tmp_path: Path
) -> None:
    tenants = services.installation.tenants
    for name, count in ((str(tenant), 3), (str(tenants.create("rival").id), 2)):
        tenants.set_limits(name, {Limit.MEMORIES: 5})
        caller = caller_of(services, tenants.get(name).id)
        new = NewMemories([Message("user", f"m {n}") for n in range(count)], SubjectNames(user_id="a"), infer=False)
        stored = services.adds.add(caller, caller.scope, new).results
        services.memories.delete(caller, caller.scope, stored[0].memory_id)
    with psycopg.connect(database.admin) as connection:
        today = datetime.now(UTC).date()
        connection.execute("INSERT INTO llm_usage VALUES (%s, %s, 7, 900)", [tenant, today])
    before = state(database)
    assert {row[0]: (row[2] == row[3], row[3][:2]) for row in before if row[0] in ("acme", "rival")} == {
        "acme": (True, "(2"),
        "rival": (True, "(1"),
    }
    dump(database.admin, tmp_path / "dump")
    with fresh_database(postgres, empty=True) as other:
        restore(other.admin if owner else other.owner, tmp_path / "dump", owner=owner)
        assert state(other) == before
        # The counting came back too, and is each tenant's own for whoever deletes as the service does.
        with psycopg.connect(other.app) as connection:
            connection.execute("SELECT set_config('app.tenant', %s, true)", [str(tenant)])
            connection.execute("DELETE FROM history")
            connection.execute("DELETE FROM memories")
        after = {row[0]: row[2] for row in state(other)}
        assert after["acme"] == "(0,0)"
        assert after["rival"] == next(row[2] for row in before if row[0] == "rival")
