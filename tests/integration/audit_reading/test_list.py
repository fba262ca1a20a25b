"""Reading the trail: filters, pages that miss and repeat nothing, cursors, names, exports, and who may not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from service.audit.events import AuditEvent
from service.scope import Caller, Permission, TenantId, service_principal
from service.wiring import Services
from tests.integration.audit_reading.conftest import MakeClient, Rows, add, audit, refused, search

pytestmark = pytest.mark.integration


def events(client: TestClient, **parameters: Any) -> list[str]:
    """The events of the rows that a filter gives, the newest first, the reading of the trail left out."""
    return [row["event"] for row in audit(client, **parameters) if row["event"] != "audit:read"]


def pages(client: TestClient, **parameters: Any) -> list[dict[str, Any]]:
    """All rows of a filter, page by page through `next`."""
    answer = client.get("/v1/audit/", params=parameters).json()
    found = list(answer["results"])
    while answer["next"]:
        answer = client.get(answer["next"]).json()
        assert answer["results"]
        found += answer["results"]
    return found


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_pages_miss_nothing_and_repeat_nothing(client: TestClient, rows: Rows, order: str) -> None:
    for number in range(12):
        search(client, f"tea {number}")
    wanted = [str(row["id"]) for row in rows("memory:searched")]
    found = [row["id"] for row in pages(client, event="memory:searched", page_size=5, order=order)]
    assert found == (wanted if order == "oldest" else wanted[::-1])
    assert [row["detail"]["rows"] for row in rows("audit:read")] == [5, 5, 2]


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_a_walk_shows_the_trail_as_it_stood_at_its_first_page(
    services: Services, tenant: TenantId, client: TestClient, rows: Rows, order: str
) -> None:
    """A row that is written before others and committed behind them is jumped over by no page."""
    caller = Caller(service_principal(tenant), request_id="late", client="", face="test")
    installation = services.installation
    parameters = {"event": "service:pinged", "order": order, "page_size": 1}
    with installation.database.transaction(caller.scope) as early:
        installation.trail.write(early, caller, AuditEvent.SERVICE_PINGED)
        for _ in range(3):
            assert client.get("/v1/ping/").status_code == 200
        first = client.get("/v1/audit/", params=parameters).json()
    assert client.get("/v1/ping/").status_code == 200
    late, *stood, after = [str(row["id"]) for row in rows("service:pinged")]
    found, following = first["results"], first["next"]
    while following:
        answer = client.get(following).json()
        found, following = found + answer["results"], answer["next"]
    assert [row["id"] for row in found] == (stood if order == "oldest" else stood[::-1])
    # Those who begin anew find the others too.
    everything = [late, *stood, after]
    found = pages(client, **parameters)
    assert [row["id"] for row in found] == (everything if order == "oldest" else everything[::-1])


def test_each_filter_narrows(make_client: MakeClient, rows: Rows) -> None:
    client, other = make_client(), make_client(connector="slack")
    (memory_id,) = add(client, "I love tea", agent_id="helper")
    add(other, "I love rain", user="bob")
    search(other, "rain", user="bob", **{"X-Request-ID": "r-7"})
    client.get(f"/v1/memories/{memory_id}/")
    client.get(f"/v1/memories/{uuid4()}/")
    assert events(client, principal_id=other.headers["X-Key"]) == ["memory:searched", "memory:added"]
    assert events(client, connector="slack") == ["memory:searched", "memory:added"]
    assert events(client, user_id="alice") == ["memory:read", "memory:added"]
    assert events(client, user_id="alice", agent_id="helper", activity="create") == ["memory:added"]
    assert events(client, user_id="bob", agent_id="helper") == []
    assert events(client, user_id="nobody") == []
    assert events(client, request_id="r-7") == ["memory:searched"]
    assert events(client, memory_id=memory_id) == ["memory:read", "memory:added"]
    assert events(client, outcome="not_found") == ["memory:read"]
    assert events(client, event=["memory:added", "key:created"], user_id="bob") == ["memory:added"]
    alice = rows("memory:added")[0]["subject_ids"][0]
    assert events(client, subject_id=str(alice)) == ["memory:read", "memory:added"]
    moment = rows("memory:searched")[0]["at"]
    assert events(client, **{"to": moment.isoformat()}, user_id="bob") == ["memory:added"]
    assert events(client, **{"from": moment.isoformat()}, user_id="bob") == ["memory:searched"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"event": "memory:thought"},
        {"activity": "guess"},
        {"outcome": "fine"},
        {"order": "random"},
        {"from": "yesterday"},
        {"principal_id": "x"},
        {"memory_id": "x"},
        {"subject_id": "x"},
        {"page_size": "0"},
        {"page_size": "1001"},
        {"user_id": ""},
        {"request_id": "x" * 300},
        {"connector": "\x00"},
        {"cursor": "x"},
        {"cursor": ""},
    ],
)
def test_what_cannot_be_understood_is_refused(client: TestClient, parameters: dict[str, str]) -> None:
    refused(client.get("/v1/audit/", params=parameters), 400, "invalid_input")


def test_a_cursor_of_another_tenant_or_filter_is_refused(
    services: Services, client: TestClient, make_client: MakeClient
) -> None:
    for number in range(3):
        search(client, f"tea {number}")
    cursor = client.get("/v1/audit/", params={"page_size": 1}).json()["next_cursor"]
    assert cursor
    assert len(audit(client, cursor=cursor)) > 1
    other = make_client(tenant_id=services.installation.tenants.create("globex").id)
    search(other, "rain", user=None)
    refused(other.get("/v1/audit/", params={"cursor": cursor}), 400, "invalid_input")
    refused(client.get("/v1/audit/", params={"cursor": cursor, "outcome": "done"}), 400, "invalid_input")
    refused(client.get("/v1/audit/", params={"cursor": cursor, "order": "oldest"}), 400, "invalid_input")
    assert {row["tenant_id"] for row in audit(other)} != {row["tenant_id"] for row in audit(client)}


def test_reading_the_trail_is_in_the_trail(client: TestClient, rows: Rows) -> None:
    add(client, "I love tea")
    audit(client, user_id="alice", activity="read")
    (row,) = rows("audit:read")
    assert row["detail"] == {"view": "rows", "filters": ["subject", "activity"], "rows": 0, "names": False}
    assert row["subject_ids"] == rows("memory:added")[0]["subject_ids"][:1]


def test_people_are_named_only_where_asked_and_only_while_they_exist(make_client: MakeClient) -> None:
    client = make_client()
    add(client, "I love tea", agent_id="helper")
    answer = client.get("/v1/audit/", params={"event": "memory:added"})
    assert answer.json()["subjects"] is None
    assert "alice" not in answer.text
    named = client.get("/v1/audit/", params={"event": "memory:added", "names": "true"}).json()["subjects"]
    assert {(one["type"], one["name"]) for one in named.values()} == {("user", "alice"), ("agent", "helper")}
    auditor = make_client(permissions={Permission.AUDIT_READ})
    refused(auditor.get("/v1/audit/", params={"names": "true"}), 403, "forbidden")
    client.delete("/v2/entities/user/alice/")
    named = client.get("/v1/audit/", params={"event": "memory:added", "names": "true"}).json()["subjects"]
    assert [one["name"] for one in named.values()] == ["helper"]


@pytest.mark.parametrize("path", ["/v1/audit/", "/v1/audit/export/", "/v1/audit/known/?user_id=a&at=2030-01-01"])
def test_only_who_may_read_the_trail_reads_it(make_client: MakeClient, rows: Rows, path: str) -> None:
    refused(make_client("agent").get(path), 403, "forbidden")
    refused(make_client("admin", users=frozenset({"alice"})).get(path), 403, "forbidden")
    reasons = [row["detail"]["reason"] for row in rows("access:denied")]
    assert reasons == ["permission", "bound"]
    assert make_client("compliance_officer").get(path).status_code in (200, 404)


def test_an_export_streams_every_row_once_in_the_order_of_the_seals(
    client: TestClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.audit.reading._EXPORT_BATCH", 3)
    for number in range(8):
        search(client, f"tea {number}")
    answer = client.get("/v1/audit/export/")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    stored = [row for row in rows() if row["tenant_id"] == rows("memory:searched")[0]["tenant_id"]]
    # The row of the export itself is written after the horizon was taken.
    assert [line["id"] for line in lines] == [str(row["id"]) for row in stored[:-1]]
    assert stored[-1]["event"] == "audit:exported"
    assert stored[-1]["detail"] == {"format": "jsonl", "filters": []}
    some = client.get("/v1/audit/export/", params={"event": "memory:searched", "format": "ocsf"}).text.splitlines()
    assert [json.loads(line)["type_uid"] for line in some] == [600302] * 8
    refused(client.get("/v1/audit/export/", params={"format": "csv"}), 400, "invalid_input")


def test_an_exported_line_is_the_line_that_is_sealed(client: TestClient, services: Services) -> None:
    from service.audit.encoding import LINE

    add(client, "I love tea")
    exported = client.get("/v1/audit/export/", params={"event": "memory:added"}).text.splitlines()
    from sqlalchemy import text

    from service.scope import Scope, service_principal

    tenant = services.installation.tenants.list()[0].id
    with services.installation.database.transaction(Scope.of(service_principal(tenant))) as connection:
        sealed = connection.execute(text(f"SELECT {LINE} FROM audit WHERE event = 'memory:added'")).scalars().all()
    assert exported == list(sealed)


def test_a_day_is_its_beginning(client: TestClient) -> None:
    search(client, "tea")
    today = datetime.now(UTC).date()
    assert events(client, **{"from": today.isoformat()})
    assert events(client, **{"from": (today + timedelta(days=1)).isoformat()}) == []
