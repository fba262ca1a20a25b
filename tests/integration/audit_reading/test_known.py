"""What was known: whatever removes a memory, moves its last day or brings it in, and whom a request answered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest
from fastapi.testclient import TestClient

from service import clock
from service.holds.rules import CountedFrom, RuleAction, RuleBody
from service.holds.spans import Span
from service.main import create_app
from service.scope import Caller
from service.storage.tombstones import TombstoneKind
from service.wiring import Services
from service.wiring.settling import settle
from tests.conftest import MakeServices, Postgres, principal_of
from tests.integration.audit_reading.conftest import MakeClient, Rows, add, refused, search
from tests.integration.audit_reading.test_questions import ids, known, now
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """A scripted LLM over HTTP."""
    with ScriptedLLM() as scripted:
        yield scripted


def batch(client: TestClient, method: str, *items: dict[str, Any]) -> None:
    """Change or delete memories in one call."""
    answer = client.request(method, "/v1/batch/", json={"memories": list(items)})
    assert answer.status_code == 200, answer.text


def day(days: int) -> str:
    """A day from today."""
    return (clock.today() + timedelta(days=days)).isoformat()


def in_a_week() -> str:
    """A moment to come."""
    return (clock.now() + timedelta(days=7)).isoformat()


def export(client: TestClient, **headers: str) -> list[dict[str, Any]]:
    """The lines of an export of everything."""
    made = client.post("/v1/exports/", json={}).json()
    answer = client.get(f"/v1/exports/{made['id']}/download/", headers=headers)
    return [orjson.loads(line) for line in answer.content.splitlines()]


def bring_in(client: TestClient, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Import lines."""
    answer = client.post("/v1/imports/", content=b"\n".join(orjson.dumps(line) for line in lines))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_what_a_batch_deleted_is_not_known(client: TestClient) -> None:
    kept, gone, also = (add(client, text)[0] for text in ("tea", "rain", "hail"))
    before = now()
    batch(client, "DELETE", {"memory_id": gone}, {"memory_id": also})
    assert ids(known(client, user_id="alice", at=before)) == [kept, gone, also]
    assert ids(known(client, user_id="alice", at=now())) == [kept]


def test_what_a_batch_made_expire_or_stay_is_told_so(client: TestClient) -> None:
    (stays,) = add(client, "tea")
    (short,) = add(client, "rain")
    (longer,) = add(client, "hail", expiration_date=day(1))
    batch(
        client,
        "PUT",
        {"memory_id": stays, "metadata": {"mood": "calm"}},
        {"memory_id": short, "expiration_date": day(1)},
        {"memory_id": longer, "expiration_date": None},
    )
    answer = known(client, user_id="alice", at=now())
    assert [memory["expires_on"] for memory in answer["memories"]] == [None, day(1), None]
    assert all(memory["changed_at"] for memory in answer["memories"])
    assert ids(known(client, user_id="alice", at=in_a_week())) == [stays, longer]
    client.put(f"/v1/memories/{short}/", json={"expiration_date": day(30)})
    batch(client, "PUT", {"memory_id": longer, "expiration_date": day(2)})
    assert ids(known(client, user_id="alice", at=in_a_week())) == [stays, short]


@pytest.mark.parametrize("action", [RuleAction.HIDE, RuleAction.DELETE])
def test_what_retention_hid_or_deleted_is_not_known(
    client: TestClient, services: Services, caller: Caller, database: Postgres, action: RuleAction
) -> None:
    old, young = (add(client, text)[0] for text in ("tea", "rain"))
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE memories SET created_at = created_at - interval '9 days' WHERE id = %s", [old])
    grace = Span("P30D") if action is RuleAction.HIDE else None
    body = RuleBody("short", age=Span("P7D"), action=action, grace=grace, counted_from=CountedFrom.CREATED)
    services.installation.retention_rules.create(caller, caller.scope, body)
    before = now()
    runs = services.installation.retention_runs
    runs.go_on(caller.scope, runs.start(caller, caller.scope, dry=False).id)
    with psycopg.connect(database.admin) as connection:
        left = connection.execute("SELECT count(*) FROM memories").fetchone()
    assert left == (2 if action is RuleAction.HIDE else 1,)
    assert ids(known(client, user_id="alice", at=before)) == [old, young]
    assert ids(known(client, user_id="alice", at=now())) == [young]


def test_what_a_restored_database_forgot_again_is_not_known(
    client: TestClient, services: Services, caller: Caller
) -> None:
    kept, gone = (add(client, text)[0] for text in ("tea", "rain"))
    before = now()
    services.installation.tombstones.append(TombstoneKind.MEMORIES_ERASED, caller.principal.tenant_id, [UUID(gone)])
    assert settle(services.installation, services.erasing, services.index).applied == 1
    assert ids(known(client, user_id="alice", at=before)) == [kept, gone]
    assert ids(known(client, user_id="alice", at=now())) == [kept]


def test_what_was_imported_is_known_for_its_own_subjects(make_client: MakeClient, client: TestClient) -> None:
    (of_alice,) = add(client, "tea", agent_id="helper")
    (of_bob,) = add(client, "rain", user="bob", agent_id="helper")
    (short,) = add(client, "hail", expiration_date=day(1))
    lines = export(client)
    for user in ("alice", "bob"):
        client.delete("/v1/memories/", params={"user_id": user})
    empty = now()
    assert bring_in(client, lines)["imported"] == 3
    assert ids(known(client, user_id="alice", at=empty)) == []
    assert set(ids(known(client, user_id="alice", at=now()))) == {of_alice, short}
    assert ids(known(client, user_id="alice", agent_id="helper", at=now())) == [of_alice]
    assert ids(known(client, user_id="bob", at=now())) == [of_bob]
    assert set(ids(known(client, agent_id="helper", at=now()))) == {of_alice, of_bob}
    assert ids(known(client, user_id="alice", at=in_a_week())) == [of_alice]
    batch(client, "DELETE", {"memory_id": of_bob})
    assert ids(known(client, user_id="bob", at=now())) == []


def test_the_rows_of_an_import_add_up(client: TestClient, rows: Rows) -> None:
    add(client, "tea", "rain")
    add(client, "hail", user="bob")
    (gone,) = add(client, "snow", user="bob")
    lines = export(client)
    client.delete(f"/v1/memories/{gone}/")
    report = bring_in(client, lines)
    assert (report["imported"], report["known"]) == (1, 3)
    told = rows("memories:imported")
    assert {row["target_ids"][0] for row in told} == {UUID(report["import_id"])}
    for name in ("imported", "known", "history"):
        assert sum(row["detail"][name] for row in told) == report[name]
    (of_bob,) = (row for row in told if row["result_ids"])
    assert (of_bob["result_ids"], of_bob["detail"]["alike"], len(of_bob["subject_ids"])) == ([UUID(gone)], True, 1)


def test_an_import_of_an_earlier_release_tells_of_nobody(client: TestClient, database: Postgres) -> None:
    """It joined the subjects of a hundred memories, so that all of them seemed to be everybody's."""
    add(client, "tea")
    add(client, "rain", user="bob")
    lines = export(client)
    for user in ("alice", "bob"):
        client.delete("/v1/memories/", params={"user_id": user})
    bring_in(client, lines)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE audit SET detail = detail - 'alike' WHERE event = 'memories:imported'")
    assert ids(known(client, user_id="bob", at=now())) == []


def test_which_memories_an_export_or_an_event_showed(client: TestClient) -> None:
    (first,) = add(client, "tea")
    (second,) = add(client, "rain", user="bob")
    export(client, **{"X-Request-ID": "export-1"})
    assert set(known(client, request_id="export-1")["shown"]) == {first, second}
    client.get("/v1/events/", headers={"X-Request-ID": "events-1"})
    assert set(known(client, request_id="events-1")["shown"]) == {first, second}
    client.get("/v1/entities/", headers={"X-Request-ID": "entities-1"})
    refused(client.get("/v1/audit/known/", params={"request_id": "entities-1"}), 404, "not_found")


def test_which_memories_a_summary_was_made_of(make_services: MakeServices, llm: ScriptedLLM) -> None:
    services = make_services(llm={"provider": "openai", "config": llm.config})
    _, key = principal_of(services, services.installation.tenants.create("acme").id)
    client = TestClient(create_app(services), headers={"Authorization": f"Token {key}"})
    (memory_id,) = add(client, "likes tea")
    (later,) = add(client, "likes rain", user="bob")
    llm.answer("She likes tea.")
    body = {"filters": {"user_id": "alice"}}
    assert client.post("/v1/summary/", json=body, headers={"X-Request-ID": "summary-1"}).status_code == 200
    answer = known(client, request_id="summary-1", user_id="bob")
    assert (answer["shown"], ids(answer)) == ([memory_id], [later])


def test_another_key_that_sends_the_same_request_id_adds_nothing(make_client: MakeClient) -> None:
    auditor, asker, other = make_client(), make_client("reader"), make_client("reader")
    (of_alice,) = add(auditor, "tea")
    (of_bob,) = add(auditor, "rain", user="bob")
    search(asker, "tea", **{"X-Request-ID": "same"})
    at = known(auditor, request_id="same")["at"]
    search(other, "rain", user="bob", **{"X-Request-ID": "same"})
    body = refused(auditor.get("/v1/audit/known/", params={"request_id": "same"}), 400, "invalid_input")
    assert all(client.headers["X-Key"] in body["detail"] for client in (asker, other))
    told = known(auditor, request_id="same", principal_id=asker.headers["X-Key"])
    assert (told["shown"], told["at"]) == ([of_alice], at)
    assert known(auditor, request_id="same", principal_id=other.headers["X-Key"])["shown"] == [of_bob]
    nobody = {"request_id": "same", "principal_id": auditor.headers["X-Key"]}
    refused(auditor.get("/v1/audit/known/", params=nobody), 404, "not_found")
    alone = {"user_id": "alice", "at": now(), "principal_id": asker.headers["X-Key"]}
    refused(auditor.get("/v1/audit/known/", params=alone), 400, "invalid_input")


def test_an_answer_says_from_when_on_a_shortened_trail_tells(client: TestClient, database: Postgres) -> None:
    add(client, "tea")
    whole = known(client, user_id="alice", at=now())
    assert (whole["total"], whole["trail_from"]) == (1, None)
    with psycopg.connect(database.admin) as connection:
        tenant = connection.execute("DELETE FROM audit WHERE event = 'memory:added' RETURNING tenant_id").fetchone()
        assert tenant is not None
        connection.execute("INSERT INTO audit_drops VALUES (%s, 1, 1, 1, '', now())", [tenant[0]])
        first = connection.execute("SELECT min(at) FROM audit WHERE tenant_id = %s", [tenant[0]]).fetchone()
    assert first is not None
    short = known(client, user_id="alice", at=now())
    assert (short["total"], short["trail_from"]) == (0, first[0].isoformat())
