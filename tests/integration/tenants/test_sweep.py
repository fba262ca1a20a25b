"""The sweep goes through what is due of each tenant, whatever kind that is, and asks an idle tenant one question."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select

from service import clock
from service.audit.tenant_details import ProjectField
from service.portability.exports import Exports, Wanted
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller, Scope, TenantId, service_principal
from service.webhooks.announcing import EventType
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of

pytestmark = pytest.mark.integration

Row = tuple[Any, ...]


@pytest.fixture
def services(make_services: MakeServices) -> Services:
    """Services that may tell others of memories."""
    return make_services(webhooks={"allowed_hosts": ["hooks.example.org"]})


def add(services: Services, caller: Caller) -> None:
    """Add one memory, with an idempotency key."""
    new = NewMemories([Message("user", "I like tea")], SubjectNames(user_id="alice"), infer=False)
    services.adds.add(caller, caller.scope, new, idempotency_key="one")


def wait(services: Services, caller: Caller) -> None:
    """Add one that waits for a reviewer, with a last day."""
    own = str(caller.principal.tenant_id)
    services.projects.update(caller, caller.scope, own, own, {ProjectField.REVIEW_REQUIRED: True})
    expires = clock.today()
    services.adds.add(
        caller,
        caller.scope,
        NewMemories([Message("user", "I like rice")], SubjectNames(user_id="alice"), expires_on=expires),
    )


def tell(services: Services, caller: Caller) -> None:
    """Add one that a webhook is told of."""
    services.webhooks.create(caller, caller.scope, "hook", "https://hooks.example.org/", [EventType.ADDED])
    add(services, caller)


@dataclass(frozen=True, slots=True)
class Kind:
    """Something that a sweep does: its part, what has to be there, when that is due and not yet, what shows it done."""

    part: str
    make: Callable[[Services, Caller], object]
    due: str
    early: str
    done: str


_IN_JOBS = "FROM procrastinate_jobs WHERE task_name"
KINDS = {
    "an erasure that was cut short": Kind(
        "erasures",
        add,
        "UPDATE subjects SET erasing_at = now() WHERE tenant_id = %(tenant)s",
        "UPDATE subjects SET erasing_at = NULL WHERE tenant_id = %(tenant)s",
        "SELECT count(*) = 0 FROM memories WHERE tenant_id = %(tenant)s",
    ),
    "an event without a job": Kind(
        "extractions",
        add,
        "UPDATE events SET status = 'PENDING', updated_at = now() - interval '3 minutes' WHERE tenant_id = %(tenant)s",
        "UPDATE events SET status = 'PENDING', updated_at = now() - interval '1 minute' WHERE tenant_id = %(tenant)s",
        f"SELECT count(*) = 1 {_IN_JOBS} = 'extract' AND args->>'tenant_id' = %(tenant)s::text",
    ),
    "an event that a worker left": Kind(
        "extractions",
        add,
        "UPDATE events SET status = 'RUNNING', updated_at = now() - interval '3 minutes' WHERE tenant_id = %(tenant)s",
        "UPDATE events SET status = 'SUCCEEDED', updated_at = now() - interval '1 day' WHERE tenant_id = %(tenant)s",
        f"SELECT count(*) = 1 {_IN_JOBS} = 'extract' AND args->>'tenant_id' = %(tenant)s::text",
    ),
    "a notification without a job": Kind(
        "webhooks",
        tell,
        "WITH gone AS (DELETE FROM procrastinate_jobs) UPDATE webhook_deliveries"
        " SET due_at = now() - interval '3 minutes' WHERE tenant_id = %(tenant)s",
        "UPDATE webhook_deliveries SET due_at = now() - interval '1 hour' WHERE tenant_id = %(tenant)s",
        f"SELECT count(*) = 1 {_IN_JOBS} = 'deliver_webhook' AND args->>'tenant_id' = %(tenant)s::text",
    ),
    "a notification that is long done": Kind(
        "webhooks",
        tell,
        "UPDATE webhook_deliveries SET status = 'delivered', updated_at = now() - interval '31 days'"
        " WHERE tenant_id = %(tenant)s",
        "UPDATE webhook_deliveries SET status = 'delivered', updated_at = now() - interval '29 days'"
        " WHERE tenant_id = %(tenant)s",
        "SELECT count(*) = 0 FROM webhook_deliveries WHERE tenant_id = %(tenant)s",
    ),
    "what nobody decided on": Kind(
        "expired in quarantine",
        wait,
        "UPDATE quarantine SET expires_on = expires_on - 1 WHERE tenant_id = %(tenant)s",
        "UPDATE quarantine SET expires_on = expires_on WHERE tenant_id = %(tenant)s",
        "SELECT count(*) = 0 FROM quarantine WHERE tenant_id = %(tenant)s",
    ),
    "an old idempotency key": Kind(
        "idempotency keys",
        add,
        "UPDATE idempotency SET created_at = now() - interval '25 hours' WHERE tenant_id = %(tenant)s",
        "UPDATE idempotency SET created_at = now() - interval '23 hours' WHERE tenant_id = %(tenant)s",
        "SELECT count(*) = 0 FROM idempotency WHERE tenant_id = %(tenant)s",
    ),
    "an old request of an export": Kind(
        "requests of exports",
        lambda services, caller: services.exports.request(caller, caller.scope, Wanted()),
        "UPDATE exports SET created_at = now() - interval '91 days' WHERE tenant_id = %(tenant)s",
        "UPDATE exports SET created_at = now() - interval '89 days' WHERE tenant_id = %(tenant)s",
        "SELECT count(*) = 0 FROM exports WHERE tenant_id = %(tenant)s",
    ),
    **{
        f"many rows of {table}": Kind(
            "usage",
            lambda services, caller: None,
            f"INSERT INTO {table} (tenant_id, memories, bytes) SELECT %(tenant)s, 0, 0 FROM generate_series(1, 51)",
            f"INSERT INTO {table} (tenant_id, memories, bytes) SELECT %(tenant)s, 0, 0 FROM generate_series(1, 50)",
            f"SELECT count(*) = 1 FROM {table} WHERE tenant_id = %(tenant)s",
        )
        for table in ("usage", "quarantine_usage")
    },
    "days of the LLM that are long past": Kind(
        "usage",
        lambda services, caller: None,
        "INSERT INTO llm_usage VALUES (%(tenant)s, now()::date - 42, 1, 1)",
        "INSERT INTO llm_usage VALUES (%(tenant)s, now()::date - 39, 1, 1)",
        "SELECT count(*) = 0 FROM llm_usage WHERE tenant_id = %(tenant)s",
    ),
}


def due(services: Services, tenant: TenantId) -> list[str]:
    """The parts of which the sweep finds something due."""
    jobs = services.jobs
    return list(jobs._due(Scope.of(service_principal(tenant)), jobs._parts()))


def ask(database: Postgres, query: str, tenant: TenantId) -> list[Row]:
    """Run a statement as a superuser."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        asked = connection.execute(query, {"tenant": tenant})  # type: ignore[arg-type]
        return asked.fetchall() if asked.description else []


@pytest.mark.parametrize("kind", KINDS)
def test_a_tenant_of_which_anything_is_due_is_swept(
    kind: str, services: Services, caller: Caller, database: Postgres
) -> None:
    one, tenant = KINDS[kind], caller.principal.tenant_id
    idle = services.installation.tenants.create("idle").id
    one.make(services, caller)
    assert (due(services, tenant), due(services, idle)) == ([], [])
    ask(database, one.due, tenant)
    assert (due(services, tenant), due(services, idle)) == ([one.part], [])
    assert ask(database, one.done, tenant) == [(False,)]
    services.jobs.sweep(0)
    assert ask(database, one.done, tenant) == [(True,)]
    assert due(services, tenant) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_tenant_of_which_nothing_is_due_yet_is_asked_only(
    kind: str, services: Services, caller: Caller, database: Postgres
) -> None:
    one, tenant = KINDS[kind], caller.principal.tenant_id
    one.make(services, caller)
    ask(database, one.early, tenant)
    assert due(services, tenant) == []


def test_requests_of_exports_stay_where_events_do(services: Services, caller: Caller, database: Postgres) -> None:
    export_id = services.exports.request(caller, caller.scope, Wanted())
    ask(database, KINDS["an old request of an export"].due, caller.principal.tenant_id)
    kept = services.settings.retention.model_copy(update={"event_days": None})
    settings = services.settings.model_copy(update={"retention": kept})
    exports = Exports(replace(services.exports._stores, settings=settings))
    with services.installation.database.transaction(caller.scope) as connection:
        assert not connection.execute(select(exports.any_old())).scalar_one()
    assert exports.forget_old(caller.scope) == 0
    assert exports.find(caller, caller.scope, export_id) == Wanted()


def test_every_part_of_the_sweep_has_something_that_is_due_here(services: Services) -> None:
    assert {one.part for one in KINDS.values()} == set(services.jobs._parts().by_name)


def test_what_is_due_of_a_tenant_is_due_after_the_tenant_s_suspension(
    services: Services, caller: Caller, database: Postgres
) -> None:
    one, tenant = KINDS["a notification without a job"], caller.principal.tenant_id
    one.make(services, caller)
    services.installation.tenants.suspend("acme")
    ask(database, one.due, tenant)
    services.jobs.sweep(0)
    assert ask(database, one.done, tenant) == [(False,)]
    services.installation.tenants.resume("acme")
    services.jobs.sweep(0)
    assert ask(database, one.done, tenant) == [(True,)]


def test_where_the_question_fails_everything_is_done(services: Services, caller: Caller, database: Postgres) -> None:
    one, tenant = KINDS["an old idempotency key"], caller.principal.tenant_id
    one.make(services, caller)
    ask(database, one.due, tenant)
    ask(database, "REVOKE SELECT ON llm_usage FROM memvault_app", tenant)
    assert set(due(services, tenant)) == set(services.jobs._parts().by_name)
    services.jobs.sweep(0)
    assert ask(database, one.done, tenant) == [(True,)]


def test_an_idle_tenant_costs_one_transaction(
    services: Services, tenant: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[TenantId] = []
    database = services.installation.database
    real = database.transaction

    def transaction(scope: Scope) -> Any:
        # Those of the threads that keep the trail are no part of it.
        if threading.current_thread() is threading.main_thread():
            begun.append(scope.tenant_id)
        return real(scope)

    monkeypatch.setattr(database, "transaction", transaction)
    services.installation.tenants.create("idle")
    begun.clear()
    services.jobs.sweep(0)
    assert sorted(begun) == sorted(services.installation.tenants.living_ids())


def test_the_question_has_a_plan_for_each_tenant(services: Services, tenant: TenantId) -> None:
    """One that is kept for all of them reads the rows of a large tenant for every small one."""
    parts = services.jobs._parts()
    own = func.current_setting("plan_cache_mode") == "force_custom_plan"
    parts.question = select(*(own.label(name) for name in parts.by_name))
    assert len(services.jobs._due(Scope.of(service_principal(tenant)), parts)) == len(parts.by_name)


def test_what_is_due_of_another_tenant_is_not_seen(services: Services, caller: Caller, database: Postgres) -> None:
    """Asked for every kind at once, with all of another's due."""
    rival = caller_of(services, services.installation.tenants.create("rival").id)
    for kind in ("an old idempotency key", "days of the LLM that are long past", "many rows of usage"):
        KINDS[kind].make(services, rival)
        ask(database, KINDS[kind].due, rival.principal.tenant_id)
    assert len(due(services, rival.principal.tenant_id)) == 2
    assert due(services, caller.principal.tenant_id) == []
