"""Up and down with data in every table: nothing that an older schema can keep is lost, and the schema is the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from service.migrations import scripts
from service.migrations.runner import downgrade, look, upgrade
from tests.conftest import Postgres, caller_of, fresh_database, open_on
from tests.integration.memories.adding import add, found
from tests.integration.migrations.catalogue import describe
from tests.integration.migrations.filling import counts, fill, tables

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

APP = "memvault_app"


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Postgres]:
    """A database without a schema."""
    with fresh_database(postgres, empty=True) as made:
        yield made


def test_every_revision_is_upgraded_and_left_again_with_rows_in_every_table(empty: Postgres) -> None:
    known = scripts.order()
    schemas: dict[str, set[tuple[str, ...]]] = {}
    with psycopg.connect(empty.admin, autocommit=True) as admin:
        for revision in known:
            before = counts(admin)
            assert upgrade(empty.owner, app_role=APP, revision=revision) == revision
            kept = counts(admin)
            assert {name: kept.get(name) for name in before} == before, revision
            schemas[revision] = describe(admin)
            fill(admin)
        assert look(empty.owner).trouble is None
        for revision in known[-2::-1]:
            before = counts(admin)
            assert downgrade(empty.owner, app_role=APP, revision=revision) == revision
            kept = counts(admin)
            # What the older schema knows is all there, and the schema is what it was on the way up.
            assert kept == {name: number for name, number in before.items() if name in kept}, revision
            assert describe(admin) == schemas[revision], revision
        assert upgrade(empty.owner, app_role=APP) == known[-1]
        assert describe(admin) == schemas[known[-1]]
        assert counts(admin)["memories"] == 1
        assert downgrade(empty.owner, app_role=APP, revision="base") == "base"
        assert tables(admin) == []
        assert upgrade(empty.owner, app_role=APP) == known[-1]
        assert describe(admin) == schemas[known[-1]]


def test_what_the_service_wrote_comes_through_the_way_down_and_up(database: Postgres, data_dir: Path) -> None:
    """Memories, their history and the trail are of the first schema; what later tables kept is gone, as is said."""
    with ExitStack() as stack:
        services = open_on(database, data_dir, stack)
        tenant = services.installation.tenants.create("acme").id
        caller = caller_of(services, tenant)
        kept, gone = (one.memory_id for one in add(services, caller, "I live in Rome", "I drink tea").results)
        services.memories.delete(caller, caller.scope, gone)
        before = services.memories.history(caller, caller.scope, kept)
        services.indexing.drain()
    with psycopg.connect(database.admin, autocommit=True) as admin:
        fill(admin)
        filled = counts(admin)
        downgrade(database.owner, app_role=APP, revision="0001")
        old = counts(admin)
        upgrade(database.owner, app_role=APP)
    assert old == {name: filled[name] for name in old}
    assert old["memories"] == 1
    assert old["audit"] > 3
    with ExitStack() as stack:
        services = open_on(database, data_dir, stack)
        caller = caller_of(services, tenant)
        assert found(services, caller, "Where do I live?") == ["I live in Rome"]
        assert services.memories.history(caller, caller.scope, kept) == before
        assert add(services, caller, "I drink coffee").results
