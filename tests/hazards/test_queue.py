"""Hazards of procrastinate."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest

from service.errors import IdempotencyConflict
from service.jobs.handlers import REBUILD_INDEX
from service.memories.events import EXTRACT
from service.records import EventStatus, Message, NewMemories, SubjectNames
from service.scope import Caller
from service.storage.tasks import TaskState
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.test_index_upkeep import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def deferring(make_services: MakeServices) -> Services:
    """Services with an LLM that nobody runs the queue for."""
    settings = {"provider": "openai", "model": "none", "api_key": "sk-none", "base_url": "http://127.0.0.1:9/v1"}
    return make_services(llm=settings)


@pytest.fixture
def caller(deferring: Services) -> Caller:
    """A caller of those services."""
    return caller_of(deferring, deferring.installation.tenants.create("acme").id)


def defer(services: Services, caller: Caller, content: str, key: str | None = None) -> UUID:
    """Add with extraction, which nobody does."""
    new = NewMemories(
        [Message("user", content, name="canaryname")],
        SubjectNames(user_id="canaryuser", app_id="canaryapp"),
        metadata={"canarykey": "canaryvalue"},
        categories=("canarycategory",),
    )
    event = services.adds.add(caller, caller.scope, new, idempotency_key=key)
    assert event.status is EventStatus.PENDING
    return event.id


def jobs(database: Postgres) -> list[tuple[str, dict[str, str]]]:
    """Return task and arguments of each job, the oldest first."""
    with psycopg.connect(database.admin) as connection:
        return connection.execute("SELECT task_name, args FROM procrastinate_jobs ORDER BY id").fetchall()


def test_the_queues_tables_hold_ids_only(deferring: Services, caller: Caller, database: Postgres) -> None:
    event_id = defer(deferring, caller, "canarytext")
    assert jobs(database) == [
        (EXTRACT, {"tenant_id": str(caller.principal.tenant_id), "event_id": str(event_id)}),
    ]
    with psycopg.connect(database.admin) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'procrastinate%'").fetchall()
        assert len(tables) >= 3
        for (table,) in tables:
            rows = connection.execute(psycopg.sql.SQL("SELECT * FROM {}").format(psycopg.sql.Identifier(table)))
            assert "canary" not in str(rows.fetchall())


def test_a_job_of_a_newer_release_is_done_without_what_this_one_does_not_know(make_services: MakeServices) -> None:
    services = make_services(worker=True, queue={"poll_interval": 0.1})
    installation = services.installation
    with installation.database.tenant_blind() as connection:
        task_id = installation.tasks.start(connection, REBUILD_INDEX)
        arguments = {"task_id": str(task_id), "of_a_newer_release": "1"}
        installation.queue.defer(connection, REBUILD_INDEX, arguments)
    eventually(lambda: installation.tasks.get(task_id).state is TaskState.SUCCEEDED)


def test_a_job_exists_only_with_the_commit_that_deferred_it(
    deferring: Services, caller: Caller, database: Postgres
) -> None:
    with deferring.installation.database.transaction(caller.scope) as connection:
        deferring.installation.queue.defer(connection, EXTRACT, {"event_id": "none"})
        connection.rollback()
    assert jobs(database) == []
    first = defer(deferring, caller, "one", key="k")
    assert defer(deferring, caller, "one", key="k") == first
    with pytest.raises(IdempotencyConflict):
        defer(deferring, caller, "two", key="k")
    assert [arguments["event_id"] for _, arguments in jobs(database)] == [str(first)]
