"""Isolation twice, each half shown alone: row-level security without our clauses, the index without Postgres."""

from __future__ import annotations

import psycopg
import pytest

from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services
from tests.conftest import Postgres, caller_of

pytestmark = pytest.mark.integration


@pytest.fixture
def two(services: Services, caller: Caller) -> tuple[Caller, Caller]:
    """Two tenants with the same user and the same text."""
    other = caller_of(services, services.installation.tenants.create("rival").id)
    for one in (caller, other):
        new = NewMemories([Message("user", "I love Italian food")], SubjectNames(user_id="alice"), infer=False)
        services.adds.add(one, one.scope, new)
    return caller, other


def test_row_level_security_alone_keeps_tenants_apart(two: tuple[Caller, Caller], database: Postgres) -> None:
    mine, theirs = (one.principal.tenant_id for one in two)
    with psycopg.connect(database.app) as connection:
        connection.execute("SELECT set_config('app.tenant', %s, true)", [str(mine)])
        assert connection.execute("SELECT DISTINCT tenant_id FROM memories").fetchall() == [(mine,)]
        assert connection.execute("SELECT * FROM memories WHERE tenant_id = %s", [theirs]).fetchall() == []
        assert connection.execute("DELETE FROM memories WHERE tenant_id = %s", [theirs]).rowcount == 0
        assert connection.execute("UPDATE memories SET version = 9 WHERE tenant_id = %s", [theirs]).rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE memories SET tenant_id = %s", [theirs])


def test_a_tenant_that_was_set_does_not_outlive_its_transaction(services: Services, two: tuple[Caller, Caller]) -> None:
    database = services.installation.database
    with database.transaction(two[0].scope) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM memories").scalar() == 1
    for _ in range(5):
        with database.tenant_blind() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM memories").scalar() == 0


def test_the_index_alone_keeps_tenants_apart(services: Services, two: tuple[Caller, Caller]) -> None:
    mine, theirs = two
    found = {}
    for one in (mine, theirs):
        scoped = services.index.of(one.scope)
        assert scoped.count() == 1
        ids, _ = scoped.versions()
        found[one.principal.tenant_id] = set(ids)
    first, second = found.values()
    assert not first & second
    assert services.index.of(mine.scope).existing(second) == {}
    services.index.of(mine.scope).delete(second)
    assert services.index.of(theirs.scope).count() == 1
