"""Webhooks end to end: made, signed, delivered to a real receiver, tried again, given up, and erased."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from fastapi.testclient import TestClient

from service.main import create_app
from service.scope import TenantId
from service.webhooks.signing import signed_headers
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, principal_of
from tests.docs.pages import blocks
from tests.integration.api.conftest import assert_error
from tests.webhooks.receiver import Receiver, receiving

pytestmark = pytest.mark.integration

ALL = ["memory_add", "memory_update", "memory_delete"]
CANARY = "text-canary"


def hook(client: TestClient, receiver: Receiver, **more: Any) -> dict[str, Any]:
    """Make a webhook and return it with its secret."""
    body = {"url": receiver.url, "name": "cache", "event_types": ALL} | more
    answer = client.post(f"/api/v1/webhooks/projects/{project(client)}/", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def project(client: TestClient) -> str:
    """The id of the client's tenant."""
    found: str = client.get("/v1/ping/").json()["project_id"]
    return found


def add(client: TestClient, *texts: str, user_id: str = "alice") -> list[str]:
    """Add texts and return the ids."""
    messages = [{"role": "user", "content": text} for text in texts]
    answer = client.post("/v3/memories/add/", json={"messages": messages, "user_id": user_id, "infer": False})
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["results"]]


def deliveries(client: TestClient, webhook_id: str, **query: Any) -> list[dict[str, Any]]:
    """The notifications of a webhook, the newest first."""
    answer = client.get(f"/api/v1/webhooks/{webhook_id}/deliveries/", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def settled(client: TestClient, webhook_id: str, count: int) -> list[dict[str, Any]]:
    """The notifications of a webhook once so many of them are not pending any more, the oldest first."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = deliveries(client, webhook_id)
        if sum(one["status"] != "pending" for one in found) >= count:
            return found[::-1]
        threading.Event().wait(0.1)
    raise AssertionError(f"not settled: {found}")


def verifying() -> Callable[[bytes, dict[str, str], str], dict[str, Any]]:
    """The function of the documentation that checks a signature."""
    (block,) = [one for one in blocks("docs/webhooks.md") if one.language == "python"]
    names: dict[str, Any] = {}
    exec(block.text, names)
    found: Callable[[bytes, dict[str, str], str], dict[str, Any]] = names["verified"]
    return found


def test_every_change_is_told_once_and_signed(client: TestClient, receiver: Receiver, tenant: TenantId) -> None:
    made = hook(client, receiver)
    assert made["secret"].startswith("whsec_")
    ids = add(client, f"{CANARY} one", f"{CANARY} two")
    client.put(f"/v1/memories/{ids[0]}/", json={"text": f"{CANARY} changed"})
    client.delete(f"/v1/memories/{ids[1]}/")
    add(client, f"{CANARY} changed", user_id="alice")
    went = settled(client, made["webhook_id"], 3)
    assert [(one["event_type"], one["memory_ids"], one["status"], one["attempts"]) for one in went[:3]] == [
        ("memory_add", ids, "delivered", 1),
        ("memory_update", ids[:1], "delivered", 1),
        ("memory_delete", ids[1:], "delivered", 1),
    ]
    verified = verifying()
    told = {}
    for one in receiver.got:
        body = verified(one.body, one.headers, made["secret"])
        assert one.path == "/hook?source=memvault"
        assert one.headers["content-type"] == "application/json"
        told[body["id"]] = body
        assert b"canary" not in one.body
        assert b"alice" not in one.body
    first = told[went[0]["id"]]
    assert first == {
        "id": went[0]["id"],
        "event_type": "memory_add",
        "event": "ADD",
        "project_id": str(tenant),
        "created_at": first["created_at"],
        "memory_ids": ids,
    }
    for one in receiver.got:
        with pytest.raises(ValueError, match="signature"):
            verified(one.body + b" ", one.headers, made["secret"])
        with pytest.raises(ValueError, match="signature"):
            verified(one.body, one.headers, "whsec_" + "AAAA" * 11)
        old = one.headers | {"webhook-timestamp": str(int(one.headers["webhook-timestamp"]) - 600)}
        with pytest.raises(ValueError, match="old"):
            verified(one.body, old, made["secret"])


def test_a_signature_is_that_of_the_standard() -> None:
    """The example of Standard Webhooks."""
    body = b'{"test": 2432232314}'
    headers = signed_headers("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_only_what_is_wanted_is_told(client: TestClient, receiver: Receiver) -> None:
    deleted = hook(client, receiver, event_types=["memory_delete"])
    ids = add(client, "tea", "coffee")
    assert client.delete("/v1/memories/?user_id=alice").status_code == 200
    (one,) = settled(client, deleted["webhook_id"], 1)
    assert (one["event_type"], sorted(one["memory_ids"])) == ("memory_delete", sorted(ids))


def test_a_change_that_is_rolled_back_is_not_told(client: TestClient, receiver: Receiver, database: Postgres) -> None:
    made = hook(client, receiver)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON audit FROM memvault_app")
        body = {"messages": [{"role": "user", "content": "tea"}], "user_id": "alice", "infer": False}
        assert client.post("/v3/memories/add/", json=body).status_code == 503
        connection.execute("GRANT INSERT ON audit TO memvault_app")
    assert deliveries(client, made["webhook_id"]) == []
    assert not receiver.got


def test_it_is_tried_again_until_it_is_taken(client: TestClient, receiver: Receiver) -> None:
    receiver.statuses = [500, 302, 204]
    made = hook(client, receiver)
    add(client, "tea")
    (one,) = settled(client, made["webhook_id"], 1)
    assert (one["status"], one["attempts"], one["http_status"], one["code"]) == ("delivered", 3, 204, None)
    assert one["next_attempt_at"] is None
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1, "each try has the same id"


def test_it_is_given_up_after_the_last_try(client: TestClient, receiver: Receiver, database: Postgres) -> None:
    receiver.statuses = [500]
    made = hook(client, receiver)
    ids = add(client, "tea")
    (one,) = settled(client, made["webhook_id"], 1)
    assert (one["status"], one["attempts"], one["http_status"], one["code"]) == ("dead", 3, 500, "status")
    assert len(receiver.got) == 3
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute(
            "SELECT outcome, target_ids, result_ids, detail FROM audit WHERE event = 'webhook:delivered'"
        ).fetchall()
    [(outcome, targets, results, detail)] = rows
    assert (outcome, [str(id_) for id_ in targets], [str(id_) for id_ in results]) == (
        "failed",
        [made["webhook_id"]],
        ids,
    )
    assert detail == {"attempts": 3, "http_status": 500}


def test_a_receiver_that_says_gone_is_not_asked_again(client: TestClient, receiver: Receiver) -> None:
    receiver.statuses = [410]
    made = hook(client, receiver)
    add(client, "tea")
    (one,) = settled(client, made["webhook_id"], 1)
    assert (one["status"], one["attempts"]) == ("dead", 1)


def test_the_client_s_calls(client: TestClient, receiver: Receiver) -> None:
    made = hook(client, receiver)
    path = f"/api/v1/webhooks/{made['webhook_id']}/"
    (listed,) = client.get(f"/api/v1/webhooks/projects/{project(client)}/").json()
    assert listed == {key: value for key, value in made.items() if key != "secret"}
    changed = client.put(path, json={"name": "other", "event_types": ["memory_add"]}).json()
    assert (changed["name"], changed["event_types"], changed["url"]) == ("other", ["memory_add"], receiver.url)
    assert "secret" not in changed
    assert changed["message"] == "Webhook updated successfully"
    assert client.delete(path).json() == {"message": "Webhook deleted successfully"}
    assert client.get(f"/api/v1/webhooks/projects/{project(client)}/").json() == []
    add(client, "nobody hears")
    for gone in (path, f"/api/v1/webhooks/{uuid4()}/", "/api/v1/webhooks/5/"):
        assert_error(client.delete(gone), 404, "not_found")
        assert_error(client.put(gone, json={"name": "x"}), 404, "not_found")
        assert_error(client.get(f"{gone}deliveries/"), 404, "not_found")


def test_all_types_that_a_client_knows_may_be_asked_for(client: TestClient, receiver: Receiver) -> None:
    made = hook(client, receiver, event_types=[*ALL, "memory_categorize"])
    assert made["event_types"] == ALL
    path = f"/api/v1/webhooks/{made['webhook_id']}/"
    changed = client.put(path, json={"event_types": ["memory_categorize", "memory_delete"]}).json()
    assert changed["event_types"] == ["memory_delete"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"url": "https://evil.example/"}, "webhooks.allowed_hosts"),
        ({"url": "http://127.0.0.1/"}, "webhooks.allowed_hosts"),
        ({"url": "ftp://127.0.0.1/"}, "url: must be https"),
        ({"url": 5}, "body.url"),
        ({"event_types": []}, "body.event_types"),
        ({"event_types": ["memory_read"]}, "body.event_types"),
        ({"event_types": ["memory_categorize"]}, "event_types: one or more of memory_add"),
        ({"name": " "}, "name: must have 1 to 255"),
        ({"name": "x" * 256}, "name: must have 1 to 255"),
        ({"name": "\x00"}, "name: null characters"),
    ],
)
def test_what_is_wrong_is_told(client: TestClient, receiver: Receiver, change: dict[str, Any], told: str) -> None:
    body = {"url": receiver.url, "name": "x", "event_types": ALL} | change
    path = f"/api/v1/webhooks/projects/{project(client)}/"
    assert told in assert_error(client.post(path, json=body), 400)["detail"]
    made = hook(client, receiver)
    own = f"/api/v1/webhooks/{made['webhook_id']}/"
    assert told in assert_error(client.put(own, json=change), 400)["detail"]
    assert_error(client.put(own, json={}), 400, "invalid_input")


def test_what_is_kept_is_sealed_and_holds_ids_only(client: TestClient, receiver: Receiver, database: Postgres) -> None:
    made = hook(client, receiver, name="name-canary")
    add(client, CANARY, user_id="user-canary")
    settled(client, made["webhook_id"], 1)
    with psycopg.connect(database.admin) as connection:
        dumped = repr(
            [
                connection.execute(f"SELECT * FROM {table}").fetchall()
                for table in ("webhooks", "webhook_deliveries", "procrastinate_jobs", "audit")
            ]
        )  # type: ignore[arg-type]
    for secret in ("canary", "127.0.0.1", made["secret"], made["secret"].removeprefix("whsec_")):
        assert secret not in dumped


def test_notifications_leave_with_the_person_that_they_tell_of(
    client: TestClient, receiver: Receiver, database: Postgres
) -> None:
    made = hook(client, receiver)
    alice, bob = add(client, "tea"), add(client, "coffee", user_id="bob")
    settled(client, made["webhook_id"], 2)
    assert client.delete("/v2/entities/user/alice/").status_code == 200
    left = settled(client, made["webhook_id"], 2)
    # That she is gone is told, so that others forget her too; by ids alone.
    assert [(one["event_type"], one["memory_ids"]) for one in left] == [("memory_add", bob), ("memory_delete", alice)]
    with psycopg.connect(database.admin) as connection:
        kept = connection.execute(
            "SELECT count(*) FROM webhook_deliveries WHERE cardinality(subject_ids) > 0"
        ).fetchone()
    assert kept == (1,)


def test_a_lost_job_is_taken_up_and_old_notifications_are_forgotten(
    client: TestClient, receiver: Receiver, services: Services, tenant: TenantId, database: Postgres
) -> None:
    made = hook(client, receiver)
    add(client, "tea")
    settled(client, made["webhook_id"], 1)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        lost = "UPDATE webhook_deliveries SET status = 'pending', due_at = now() - interval '1 hour'"
        connection.execute(lost)
        services.jobs.sweep_tenant(tenant)
        (one,) = settled(client, made["webhook_id"], 1)
        assert (one["status"], one["attempts"]) == ("delivered", 2)
        connection.execute("UPDATE webhook_deliveries SET updated_at = now() - interval '31 days'")
        services.jobs.sweep_tenant(tenant)
    assert deliveries(client, made["webhook_id"]) == []


def test_a_slow_receiver_holds_one_place_of_the_worker_with_all_its_tries(
    client: TestClient, receiver: Receiver, services: Services, tenant: TenantId, database: Postgres
) -> None:
    receiver.statuses, receiver.pause = [500], 0.3
    made = hook(client, receiver)
    for text in ("tea", "rain", "hail"):
        add(client, text)
    settled(client, made["webhook_id"], 3)
    assert (len(receiver.got), receiver.most_at_once) == (9, 1)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        lost = "UPDATE webhook_deliveries SET status = 'pending', attempts = 0, due_at = now() - interval '1 hour'"
        connection.execute(lost)
        services.jobs.sweep_tenant(tenant)
        settled(client, made["webhook_id"], 3)
        assert (len(receiver.got), receiver.most_at_once) == (18, 1)


def test_what_is_tried_again_later_keeps_nothing_waiting(make_services: MakeServices, receiver: Receiver) -> None:
    allowed = {"allowed_hosts": [receiver.host], "allowed_networks": ["127.0.0.0/8"]}
    services = make_services(worker=True, webhooks={**allowed, "retry_wait": 3600.0}, queue={"poll_interval": 0.1})
    client = TestClient(create_app(services), raise_server_exceptions=False)
    tenant = services.installation.tenants.create("later").id
    client.headers["Authorization"] = f"Token {principal_of(services, tenant)[1]}"
    receiver.statuses = [500, 200]
    made = hook(client, receiver)
    add(client, "tea")
    while not deliveries(client, made["webhook_id"])[0]["attempts"]:
        threading.Event().wait(0.1)
    add(client, "rain")
    assert [one["status"] for one in settled(client, made["webhook_id"], 1)] == ["pending", "delivered"]


def pending(client: TestClient, webhook_id: str, attempts: int) -> list[tuple[str, list[str]]]:
    """The type and the ids of all notifications once each was tried so often and waits, the oldest first."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = deliveries(client, webhook_id)
        if found and all((one["status"], one["attempts"]) == ("pending", attempts) for one in found):
            return [(one["event_type"], one["memory_ids"]) for one in found[::-1]]
        threading.Event().wait(0.1)
    raise AssertionError(f"not tried: {found}")


def waiting_long(make_services: MakeServices, *receivers: Receiver, **more: Any) -> tuple[Services, TestClient]:
    """Services that may notify these receivers, an hour between two tries, and a client of theirs."""
    allowed = {"allowed_hosts": [one.host for one in receivers], "allowed_networks": ["127.0.0.0/8"]}
    webhooks = {**allowed, "retry_wait": 3600.0, **more}
    services = make_services(worker=True, webhooks=webhooks, queue={"poll_interval": 0.1, "concurrency": 1})
    client = TestClient(create_app(services), raise_server_exceptions=False)
    tenant = services.installation.tenants.create("waiting").id
    client.headers["Authorization"] = f"Token {principal_of(services, tenant)[1]}"
    return services, client


def test_an_erasure_takes_nothing_back_of_what_must_still_be_told(
    make_services: MakeServices, receiver: Receiver, database: Postgres
) -> None:
    _, client = waiting_long(make_services, receiver)
    receiver.statuses = [500]
    made = hook(client, receiver)
    (alice,), (bob,) = add(client, "tea"), add(client, "rain", user_id="bob")
    client.request("DELETE", "/v1/batch/", json={"memories": [{"memory_id": alice}, {"memory_id": bob}]})
    (later,) = add(client, "hail")
    client.delete(f"/v1/memories/{later}/")
    told = [
        ("memory_add", [alice]),
        ("memory_add", [bob]),
        ("memory_delete", sorted([alice, bob])),
        ("memory_add", [later]),
        ("memory_delete", [later]),
    ]
    found = pending(client, made["webhook_id"], 1)
    assert [(kind, sorted(ids)) for kind, ids in found] == told
    assert client.delete("/v2/entities/user/alice/").status_code == 200
    found = pending(client, made["webhook_id"], 1)
    assert [(kind, sorted(ids)) for kind, ids in found] == told[1:3] + told[4:]
    with psycopg.connect(database.admin) as connection:
        subjects = connection.execute("SELECT DISTINCT unnest(subject_ids) FROM webhook_deliveries").fetchall()
    assert len(subjects) == 1, "bob's alone"


def test_a_receiver_that_hangs_keeps_no_other_work_and_no_other_webhook_waiting(
    make_services: MakeServices, receiver: Receiver
) -> None:
    with receiving() as hanging:
        _, client = waiting_long(make_services, receiver, hanging, timeout=60, concurrency=2)
        hanging.pause = 40.0
        hook(client, hanging)
        made = hook(client, receiver)
        ids = [add(client, text) for text in ("tea", "rain", "hail")]
        assert [one["memory_ids"] for one in settled(client, made["webhook_id"], 3)] == ids
        erasure = client.post("/v1/erasures/", json={"connector": "none"}).json()["id"]
        while client.get(f"/v1/erasures/{erasure}/").json()["rows_removed_at"] is None:
            threading.Event().wait(0.1)
        assert (hanging.got, hanging.most_at_once) == ([], 1)
        hanging.released.set()


def test_a_receiver_that_does_not_answer_is_asked_once_for_all_that_wait_for_it(
    make_services: MakeServices, receiver: Receiver
) -> None:
    _, client = waiting_long(make_services, receiver)
    receiver.raw = iter(())
    made = hook(client, receiver)
    for text in ("tea", "rain", "hail"):
        add(client, text)
    assert len(pending(client, made["webhook_id"], 1)) == 3
    assert {one["code"] for one in deliveries(client, made["webhook_id"])} == {"no_answer"}
    assert len(receiver.got) == 1


def test_where_each_notification_has_one_try_none_is_given_up_without_it(
    make_services: MakeServices, receiver: Receiver
) -> None:
    _, client = waiting_long(make_services, receiver, attempts=1)
    receiver.raw = iter(())
    made = hook(client, receiver)
    add(client, "tea")
    settled(client, made["webhook_id"], 1)
    receiver.raw = None
    add(client, "rain")
    found = settled(client, made["webhook_id"], 2)
    assert [one["status"] for one in found] == ["dead", "delivered"]


def test_a_batch_is_one_notification(client: TestClient, receiver: Receiver) -> None:
    made = hook(client, receiver, event_types=["memory_update"])
    ids = add(client, "tea", "rain", "hail")
    changes = {"memories": [{"memory_id": one, "text": f"changed {one}"} for one in ids]}
    assert client.put("/v1/batch/", json=changes).status_code == 200
    client.put(f"/v1/memories/{ids[0]}/", json={"text": "changed again"})
    many, one = settled(client, made["webhook_id"], 2)
    assert (sorted(many["memory_ids"]), one["memory_ids"]) == (sorted(ids), ids[:1])


def test_a_suspended_tenant_tells_nobody_until_it_is_resumed(
    client: TestClient, receiver: Receiver, services: Services, tenant: TenantId, database: Postgres
) -> None:
    receiver.statuses = [500, 200]
    made = hook(client, receiver)
    row = "SELECT id FROM webhook_deliveries"
    with psycopg.connect(database.admin, autocommit=True) as connection:
        # Written as if the tenant had been suspended between the change and its notification.
        connection.execute(
            "INSERT INTO webhook_deliveries SELECT tenant_id, gen_random_uuid(), id, 'memory_add', '{}', '{}',"
            " 'pending', 0, NULL, NULL, now(), now(), now() FROM webhooks"
        )
        found = connection.execute(row).fetchone()
        assert found is not None
        services.installation.tenants.suspend(str(tenant))
        connection.execute("UPDATE webhook_deliveries SET due_at = '2020-01-01', updated_at = '2020-01-01'")
        services.jobs.sweep_tenant(tenant)
        assert connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchone() == (0,)
        services.jobs.handlers()["deliver_webhook"](tenant_id=str(tenant), delivery_id=str(found[0]), in_turn="yes")
        assert not receiver.got
        services.installation.tenants.resume(str(tenant))
        services.jobs.handlers()["deliver_webhook"](tenant_id=str(tenant), delivery_id=str(found[0]), in_turn="yes")
    assert len(receiver.got) >= 1
    assert deliveries(client, made["webhook_id"])[0]["attempts"] >= 1


def test_off_by_default_and_readyz_says_so(make_services: MakeServices, database: Postgres) -> None:
    services = make_services()
    assert {part.name: part.state for part in services.readiness()}["webhooks"] == "off"
    tenant = services.installation.tenants.create("quiet").id
    client = TestClient(create_app(services), raise_server_exceptions=False)
    client.headers["Authorization"] = f"Token {principal_of(services, tenant)[1]}"
    body = {"url": "https://hook.example/", "name": "x", "event_types": ALL}
    told = assert_error(client.post(f"/api/v1/webhooks/projects/{tenant}/", json=body), 400)["detail"]
    assert "webhooks.allowed_hosts" in told
    assert client.get(f"/api/v1/webhooks/projects/{tenant}/").json() == []
    add(client, "tea")
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM webhook_deliveries").fetchone() == (0,)
