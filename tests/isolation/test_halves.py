"""Isolation twice, each half shown alone: row-level security without our clauses, the index without Postgres."""

from __future__ import annotations

import psycopg
import pytest

from service.audit.codes import ImportSource
from service.filters.ast import EVERYTHING, Condition, Field, Not, Op
from service.memories.actions import Query
from service.portability.exports import Wanted
from service.portability.lines import read_lines
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services
from tests.conftest import Postgres, caller_of

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


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


def test_without_our_clause_no_table_shows_another_tenant(two: tuple[Caller, Caller], database: Postgres) -> None:
    mine, theirs = (one.principal.tenant_id for one in two)
    with psycopg.connect(database.admin) as admin, psycopg.connect(database.app) as app:
        tables = admin.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid WHERE c.relkind IN ('r', 'p')"
        ).fetchall()
        filled = set()
        app.execute("SELECT set_config('app.tenant', %s, true)", [str(mine)])
        for (table,) in tables:
            count = f"SELECT count(*) FROM {table} WHERE tenant_id = %s"
            (there,) = admin.execute(count, [theirs]).fetchone() or (0,)  # type: ignore[arg-type]
            filled |= {table} if there else set()
            with app.transaction():
                assert app.execute(count, [theirs]).fetchone() == (0,), table  # type: ignore[arg-type]
                # No clause of ours at all: what comes back is the tenant's of the transaction.
                seen = app.execute(f"SELECT DISTINCT tenant_id FROM {table}").fetchall()  # type: ignore[arg-type]
                assert seen in ([], [(mine,)]), table
    assert filled >= {"memories", "subjects", "history", "events", "audit", "api_keys"}


def test_without_row_level_security_the_index_still_keeps_tenants_apart(
    services: Services, two: tuple[Caller, Caller], database: Postgres
) -> None:
    mine, theirs = two
    new = NewMemories([Message("user", "Zanzibar in spring")], SubjectNames(user_id="alice"), infer=False)
    services.adds.add(theirs, theirs.scope, new)
    with psycopg.connect(database.admin, autocommit=True) as admin:
        for (table,) in admin.execute("SELECT DISTINCT polrelid::regclass::text FROM pg_policy").fetchall():
            admin.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")  # type: ignore[arg-type]
    with services.installation.database.transaction(mine.scope) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM memories").scalar() == 3, "the other half is still on"
    vector = services.memories._stores.embedder.embed_query("Zanzibar in spring")
    terms = services.indexing.terms(mine.scope).query("Zanzibar in spring")
    for where in (EVERYTHING, Not(Condition(Field.USER, Op.EQ, "nobody")), Condition(Field.USER, Op.EQ, "alice")):
        with services.installation.database.transaction(mine.scope) as connection:
            lookup = services.memories._stores.lookup(connection, mine.scope, where)
        found = services.index.of(mine.scope).search(vector, terms, where, lookup, limit=50, users=None, on=None)
        own, _ = services.index.of(mine.scope).versions()
        assert {one.memory_id for one in found.candidates} <= set(own)
        assert len(own) == 1
    hits = services.memories.search(mine, mine.scope, Query("Zanzibar in spring"))
    assert [hit.memory.text for hit in hits if "Zanzibar" in hit.memory.text] == []


def test_both_tenants_keep_a_memory_of_one_id(services: Services, two: tuple[Caller, Caller]) -> None:
    mine, theirs = two
    ids = [services.memories.list(one, one.scope, EVERYTHING, page=1, size=5, on=None).items[0].id for one in two]
    lines = [
        line
        for batch in services.exports.read(theirs, theirs.scope, Wanted(SubjectNames(user_id="alice")))
        for line in batch.lines
    ]
    report = services.imports.run(
        mine,
        mine.scope,
        lambda: read_lines((f"line {number}", line) for number, line in enumerate(lines, 1)),
        origin=ImportSource.EXPORT,
        dry_run=False,
    )
    assert report.memories == 1
    services.indexing.drain()
    for one, expected in ((mine, set(ids)), (theirs, {ids[1]})):
        assert set(services.index.of(one.scope).versions()[0]) == expected
    services.memories.delete(mine, mine.scope, ids[1])
    assert set(services.index.of(theirs.scope).versions()[0]) == {ids[1]}
    assert services.memories.get(theirs, theirs.scope, ids[1]).text == "I love Italian food"
