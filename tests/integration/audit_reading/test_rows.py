"""What a row of the trail holds: who, for whom, with what right, for what, on what, with what result; never content."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from service import clock
from service.audit.events import EVENT_OF, AuditEvent
from service.holds.rules import RuleBody
from service.holds.spans import Span
from service.policy.table import ROLES
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller, Limit, TenantId
from service.settings.languages import Language
from service.wiring import Services
from tests.conftest import MakeServices, caller_of
from tests.integration.audit_reading.conftest import MakeClient, Rows, add, refused, search
from tests.integration.memories.extracting import ask, ended
from tests.integration.memories.test_quarantine import review
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration


def test_a_row_says_who_for_whom_by_what_right_and_for_what(make_client: MakeClient, rows: Rows) -> None:
    add(make_client(), "I love tea")
    bound = make_client("agent", users=frozenset({"alice"}), connector="slack")
    found = search(bound, "tea", **{"X-Purpose": "support case 7", "X-Request-ID": "r-1", "User-Agent": "probe"})
    row = rows("memory:searched")[-1]
    (user,) = rows("memory:added")[-1]["subject_ids"]
    assert str(row["principal_id"]) == bound.headers["X-Key"]
    assert row["acting_subject_id"] == user
    assert row["subject_ids"] == [user]
    assert row["permissions"] == sorted(permission.value for permission in ROLES["agent"])
    assert (row["purpose"], row["connector"], row["request_id"]) == ("support case 7", "slack", "r-1")
    assert (row["client"], row["face"], row["outcome"]) == ("probe", "rest", "done")
    assert [str(one) for one in row["result_ids"]] == found
    assert len(row["query_mac"]) == 32
    assert row["value_mac"] is None
    assert row["detail"] == {"limit": 10}


def test_a_key_without_a_user_acts_for_nobody_and_a_purpose_may_be_left_out(client: TestClient, rows: Rows) -> None:
    add(client, "I love tea")
    row = rows("memory:added")[-1]
    assert row["acting_subject_id"] is None
    assert row["purpose"] is None


def test_a_purpose_that_cannot_be_shown_is_refused(client: TestClient, rows: Rows) -> None:
    before = len(rows())
    refused(client.get("/v1/ping/", headers={"X-Purpose": "x" * 201}), 400, "invalid_input")
    assert len(rows()) == before


def test_what_a_key_may_not_do_is_in_the_trail_whatever_purpose_is_given(make_client: MakeClient, rows: Rows) -> None:
    refused(make_client("agent").get("/v1/audit/", headers={"X-Purpose": "x" * 201}), 403, "forbidden")
    (row,) = rows("access:denied")
    assert (row["detail"]["reason"], row["purpose"]) == ("permission", None)


def test_an_add_of_several_texts_keeps_one_hmac_for_each(client: TestClient, rows: Rows) -> None:
    ids = add(client, "I love tea", "I love cake", "I love rain")
    add(client, "I love tea")
    first, second = rows("memory:added")
    assert [str(one) for one in first["result_ids"]] == ids
    assert len(first["value_mac"]) == 3 * 32
    assert first["detail"] == {"added": 3, "known": 0}
    assert second["value_mac"] is None
    assert second["detail"] == {"added": 0, "known": 1}


def test_an_update_says_what_of_the_memory_it_changed(client: TestClient, rows: Rows) -> None:
    (memory_id,) = add(client, "I love tea")
    client.put(f"/v1/memories/{memory_id}/", json={"text": "I love coffee", "expiration_date": "2999-01-31"})
    client.put(f"/v1/memories/{memory_id}/", json={"metadata": {"place": "home"}})
    text, metadata = rows("memory:updated")
    assert text["detail"] == {"changed": ["text", "expires_on"], "version": 2, "expires_on": "2999-01-31"}
    assert len(text["value_mac"]) == 32
    assert metadata["detail"] == {"changed": ["metadata"], "version": 3}
    assert metadata["value_mac"] is None


def test_what_an_event_shows_is_in_the_trail(client: TestClient, rows: Rows) -> None:
    body = {"messages": [{"role": "user", "content": "I love tea"}], "user_id": "alice", "infer": False}
    headers = {"Idempotency-Key": "one"}
    added = client.post("/v3/memories/add/", json=body, headers=headers).json()
    memory_ids = [UUID(result["id"]) for result in added["results"]]
    assert client.post("/v3/memories/add/", json=body, headers=headers).json() == added
    client.get(f"/v1/event/{added['event_id']}/")
    client.get("/v1/events/")
    replayed, read = rows("event:read")
    (listed,) = rows("events:listed")
    assert replayed["detail"] == {"replayed": True}
    assert read["detail"] == {"replayed": False}
    for row in (replayed, read, listed):
        assert row["target_ids"] == [UUID(added["event_id"])]
        assert row["result_ids"] == memory_ids


def test_a_list_of_more_ids_than_a_row_holds_goes_into_more_rows(
    client: TestClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[str] = []
    for start in range(0, 1100, 200):
        ids += add(client, *(f"fact number {number}" for number in range(start, min(start + 200, 1100))))
    assert client.delete("/v1/memories/?user_id=alice").json()["count"] == 1100
    first, second = rows("memories:deleted")
    assert [row["detail"] for row in (first, second)] == [
        {"count": 1100, "quarantined": 0, "part": 1, "parts": 2},
        {"count": 1100, "quarantined": 0, "part": 2, "parts": 2},
    ]
    assert len(first["target_ids"]) == 1000
    assert {str(one) for one in (*first["target_ids"], *second["target_ids"])} == set(ids)
    assert first["request_id"] == second["request_id"]
    assert first["xid"] == second["xid"]


def test_refusals_and_what_is_not_there_are_in_the_trail(make_client: MakeClient, rows: Rows) -> None:
    reader = make_client("reader")
    target = str(uuid4())
    refused(reader.delete(f"/v1/memories/{target}/"), 403, "forbidden")
    refused(reader.get(f"/v1/memories/{target}/"), 404, "not_found")
    refused(make_client().delete(f"/v1/keys/{target}/"), 404, "not_found")
    denied, missing, key = rows("access:denied")[-1], rows("memory:read")[-1], rows("key:revoked")[-1]
    assert denied["detail"] == {"action": "delete", "reason": "permission"}
    assert denied["outcome"] == "refused"
    assert [str(one) for one in denied["target_ids"]] == [target]
    assert [row["outcome"] for row in (missing, key)] == ["not_found", "not_found"]


def test_nothing_that_people_wrote_is_in_the_trail(make_client: MakeClient, rows: Rows) -> None:
    client = make_client(label="canary label")
    more = {"metadata": {"canary key": "canary value"}, "categories": ["canary category"]}
    ids = add(client, "canary text", user="canary user", agent_id="canary agent", **more)
    search(client, "canary query", user="canary user")
    client.put(f"/v1/memories/{ids[0]}/", json={"text": "another canary"})
    client.get("/v2/entities/user/canary%20user/")
    client.get("/v1/memories/?user_id=canary%20nobody")
    client.post("/v1/audit/match/", json={"value": "canary query", "user_id": "canary user"})
    client.get("/v1/audit/", params={"user_id": "canary user", "names": "true"})
    client.delete("/v2/entities/user/canary%20user/")
    kept = json.dumps(rows(), default=lambda value: value.hex() if isinstance(value, bytes) else str(value))
    assert len(rows()) > 8
    assert "canary" not in kept


def test_every_event_can_be_seen_to_happen(
    make_services: MakeServices, rows: Rows, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no action leaves by itself, and what the calls of the Mem0 dialect leave. That each action leaves its own
    event is shown in `tests/isolation/test_audit_rows.py`, which has a way to take every one."""
    with ScriptedLLM() as llm:
        flags = {"provider": "openai", "config": llm.config, "timeout": 5.0, "attempts": 1}
        services = make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})
        tenants = services.installation.tenants
        tenant = tenants.create("acme").id
        caller = caller_of(services, tenant)
        llm.facts("Alice loves tea")
        ended(services, caller, ask(services, caller, "I love tea"))
        llm.status(400)
        ended(services, caller, ask(services, caller, "I love cake"))
        llm.facts("Alice loves rye")
        review(services, caller)
        ended(services, caller, ask(services, caller, "I love rye"))
        drive(services, tenant)
        forget_all(services, caller)
        tenants.suspend("acme")
        tenants.resume("acme")
        tenants.rename("acme", "apex")
        tenants.set_limits("apex", {Limit.MEMORIES: 1})
        tenants.set_language("apex", Language.GERMAN)
    seen = {row["event"] for row in rows()}
    assert seen <= set(AuditEvent)
    assert set(AuditEvent) - set(EVENT_OF.values()) - BEYOND <= seen
    assert len(set(EVENT_OF.values()) & seen) >= 20
    (recalled, *_) = rows("memory:recalled")
    assert recalled["principal_id"] == caller.principal.id


#: What only old age, a restart, another host or a step of a long job brings about; each has tests beside what it tells.
BEYOND = {
    *(AuditEvent.TRAIL_DROPPED, AuditEvent.TRAIL_RESTORED, AuditEvent.TOMBSTONE_APPLIED, AuditEvent.BACKUP_MADE),
    *(AuditEvent.ERASURE_BEGUN, AuditEvent.ERASURE_CONTINUED, AuditEvent.ERASURE_COMPLETED, AuditEvent.TENANT_DELETED),
    *(AuditEvent.REVIEWS_EXPIRED, AuditEvent.WEBHOOK_DELIVERED, AuditEvent.LIMIT_REACHED),
    *(AuditEvent.KEYRING_MOVED, AuditEvent.KEYRING_REWRAPPED, AuditEvent.EMBEDDER_CHANGED),
    AuditEvent.MEMORIES_CONSOLIDATED,
}


def forget_all(services: Services, caller: Caller) -> None:
    """Let a retention run forget a memory."""
    said = NewMemories([Message("user", "I love old tea")], SubjectNames(user_id="old"), infer=False)
    services.adds.add(caller, caller.scope, replace(said, occurred_at=clock.now() - timedelta(days=9)))
    installation = services.installation
    installation.retention_rules.create(caller, caller.scope, RuleBody("old", age=Span("P1D")))
    run = installation.retention_runs.start(caller, caller.scope, dry=False)
    installation.retention_runs.go_on(caller.scope, run.id)


def drive(services: Services, tenant: TenantId) -> None:
    """Take every action that needs no LLM, over HTTP."""
    from service.main import create_app
    from tests.conftest import principal_of

    def client_of(role: str) -> TestClient:
        _, secret = principal_of(services, tenant, role=role)
        client = TestClient(create_app(services), raise_server_exceptions=False)
        client.headers["Authorization"] = f"Token {secret}"
        return client

    client, reader = client_of("admin"), client_of("reader")
    ids = add(client, "I love rain", "I love snow")
    search(client, "rain")
    client.get("/v1/ping/")
    client.post("/v3/memories/", json={})
    client.get(f"/v1/memories/{ids[0]}/")
    client.get(f"/v1/memories/{ids[0]}/history/")
    client.put(f"/v1/memories/{ids[0]}/", json={"text": "I love hail"})
    client.delete(f"/v1/memories/{ids[0]}/")
    event_id = client.get("/v1/events/").json()["results"][0]["id"]
    client.get(f"/v1/event/{event_id}/")
    client.get("/v1/entities/")
    client.get("/v1/audit/")
    client.get("/v1/audit/export/")
    client.post("/v1/audit/match/", json={"value": "rain", "user_id": "alice"})
    key = client.post("/v1/keys/", json={"role": "reader"}).json()["id"]
    client.get("/v1/keys/")
    client.delete(f"/v1/keys/{key}/")
    reader.delete(f"/v1/memories/{ids[1]}/")
    client.delete("/v1/memories/?user_id=alice")
    client.delete("/v2/entities/user/alice/")
    client.headers["Authorization"] = "Token mv_wrong"
    assert client.get("/v1/ping/").status_code == 401
