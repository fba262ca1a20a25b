"""Whose webhooks there are: as many as a tenant may have, managed by who may, and told of nobody else's changes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from fastapi.testclient import TestClient

from service.errors import TooLarge
from service.scope import TenantId
from service.webhooks.announcing import EventType
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.api.conftest import assert_error
from tests.process.memvault import eventually
from tests.webhooks.conftest import MakeApiClient
from tests.webhooks.receiver import Receiver
from tests.webhooks.test_webhooks import ALL, add, deliveries, hook, project, settled

pytestmark = pytest.mark.integration


def test_a_tenant_has_a_bounded_number(client: TestClient, receiver: Receiver) -> None:
    for number in range(3):
        hook(client, receiver, name=f"hook {number}", event_types=["memory_delete"])
    body = {"url": receiver.url, "name": "x", "event_types": ALL}
    assert_error(client.post(f"/api/v1/webhooks/projects/{project(client)}/", json=body), 413, "too_large")


def test_of_two_that_are_made_at_once_only_one_gets_the_last_place(
    services: Services, tenant: TenantId, receiver: Receiver, database: Postgres
) -> None:
    caller = caller_of(services, tenant)

    def make(name: str) -> bool:
        try:
            services.webhooks.create(caller, caller.scope, name, receiver.url, [EventType.ADDED])
        except TooLarge:
            return False
        return True

    assert [make("one"), make("two")] == [True, True]
    waiting = (
        "SELECT count(*) > 1 FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
        " WHERE datname = current_database() AND NOT granted"
    )
    with ThreadPoolExecutor(2) as pool, psycopg.connect(database.admin) as lock:
        # Who has counted waits here before a row is written.
        lock.execute("LOCK TABLE webhooks IN SHARE MODE")
        made = [pool.submit(make, name) for name in ("three", "four")]
        eventually(lambda: lock.execute(waiting).fetchone() == (True,))  # type: ignore[arg-type]
        lock.rollback()
        assert sorted(one.result() for one in made) == [False, True]
    assert len(services.webhooks.list(caller, caller.scope)) == 3


def test_nobody_manages_them_but_who_may(
    api: MakeApiClient, client: TestClient, receiver: Receiver, services: Services
) -> None:
    made = hook(client, receiver)
    own, path = f"/api/v1/webhooks/projects/{project(client)}/", f"/api/v1/webhooks/{made['webhook_id']}/"
    body = {"url": receiver.url, "name": "x", "event_types": ALL}
    for refused in (api(role="agent"), api(role="compliance_officer"), api(users=frozenset({"alice"}))):
        for answer in (
            refused.post(own, json=body),
            refused.get(own),
            refused.put(path, json={"name": "x"}),
            refused.delete(path),
            refused.get(f"{path}deliveries/"),
        ):
            assert_error(answer, 403, "forbidden")
    rival = api(of=services.installation.tenants.create("rival").id)
    for answer in (
        rival.post(own, json=body),
        rival.get(own),
        rival.put(path, json={"name": "x"}),
        rival.delete(path),
        rival.get(f"{path}deliveries/"),
    ):
        assert_error(answer, 404, "not_found")
    theirs = hook(rival, receiver)
    ids = add(client, "tea")
    settled(client, made["webhook_id"], 1)
    assert deliveries(rival, theirs["webhook_id"]) == [], "another tenant's changes are not told"
    assert [json.loads(one.body)["memory_ids"] for one in receiver.got] == [ids]
