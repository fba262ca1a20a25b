"""What the metrics tell of a service at work, and of one whose stores are away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service import wiring
from service.audit.tenant_details import ProjectField
from service.errors import IndexUnavailable, RecordUnavailable
from service.jobs.survey import Survey
from service.main import create_app
from service.observability.figures import Figures
from service.observability.per_tenant import LlmUse
from service.records import Message, SubjectNames
from service.scope import Caller, TenantId
from service.storage.quarantine import Quarantine
from service.wiring import Services
from tests.conftest import MakeServices, principal_of

pytestmark = pytest.mark.integration

TOKEN = "token-of-the-metrics-0123456789abcdef"
Sample = tuple[str, frozenset[tuple[str, str]]]


def samples(text: str) -> dict[Sample, float]:
    """Return what a scrape shows."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def survey_of(services: Services, figures: Figures, **more: Any) -> Survey:
    """A survey that looks when it is told to."""
    one = services.installation
    return Survey(
        one.database,
        one.tenants,
        services.outbox,
        one.tasks,
        Quarantine(one.keyring, one.record),
        services.index,
        figures,
        parts=lambda: {(part.name,): float(part.state == "ok") for part in services.readiness()},
        llm=lambda: None,
        works=lambda: True,
        interval=15,
        tenants_a_look=1,
        **more,
    )


def shown(figures: Figures) -> dict[Sample, float]:
    return {key(one.name, **one.labels): one.value for family in figures.collect() for one in family.samples}


def test_how_everything_stands(services: Services, tenant: TenantId, caller: Caller) -> None:
    from service.memories.adds import NewMemories

    services.installation.tenants.create("second")
    messages = [Message("user", "I keep bees"), Message("user", "I sell honey")]
    services.adds.add(caller, caller.scope, NewMemories(messages, SubjectNames(user_id="ada"), infer=False))
    services.projects.update(caller, caller.scope, str(tenant), str(tenant), {ProjectField.REVIEW_REQUIRED: True})
    waits = NewMemories([Message("user", "I fear wasps")], SubjectNames(user_id="ada"))
    services.adds.add(caller, caller.scope, waits)
    figures = Figures()
    survey = survey_of(services, figures)
    with services.installation.database.transaction(caller.scope) as connection:
        services.installation.queue.defer(connection, "waits_for_ever", {"tenant_id": str(tenant)})
    survey.look_at_record()
    survey.look_at_index()
    survey.look_at_parts()
    told = shown(figures)
    assert told[key("memvault_store_up", store="record")] == 1
    assert told[key("memvault_store_up", store="index")] == 1
    assert 0 < told[key("memvault_store_latency_seconds", store="record")] < 10
    assert told[key("memvault_queue_jobs", task="waits_for_ever", state="due")] == 1
    assert told[key("memvault_queue_oldest_seconds", task="waits_for_ever")] >= 0
    assert told[key("memvault_outbox_rows")] >= 0
    assert told[key("memvault_index_points")] == 2
    assert told[key("memvault_tenants", status="active")] == 2
    assert told[key("memvault_audit_unsealed_rows")] > 0
    assert told[key("memvault_audit_unsealed_seconds")] > 0
    assert told[key("memvault_erasures_open", state="due")] == 0
    assert told[key("memvault_part_up", part="record")] == 1
    # One tenant a look: the round is not over.
    assert key("memvault_record_memories") not in told
    survey.look_at_record()
    told = shown(figures)
    assert told[key("memvault_record_memories")] == 2
    assert told[key("memvault_index_drift")] == 0
    assert told[key("memvault_quarantine_memories")] == 1
    assert told[key("memvault_retention_oldest_seconds")] > 0


def test_points_that_the_index_lacks_are_drift(services: Services, tenant: TenantId, caller: Caller) -> None:
    from service.memories.adds import NewMemories

    new = NewMemories([Message("user", "I keep bees")], SubjectNames(user_id="ada"), infer=False)
    event = services.adds.add(caller, caller.scope, new)
    services.index.of(caller.scope).delete([one.memory_id for one in event.results])
    figures = Figures()
    survey_of(services, figures).look_at_record()
    assert shown(figures)[key("memvault_index_drift")] == 1


def test_a_scrape_works_while_a_store_is_away(
    services: Services, client_of: Callable[[Services], TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise RecordUnavailable("away")

    def gone(*_: object) -> int:
        raise IndexUnavailable("away")

    figures = Figures()
    survey = survey_of(services, figures)
    survey.look_at_record()
    survey.look_at_index()
    monkeypatch.setattr(type(services.installation.database), "ping", away)
    monkeypatch.setattr(type(services.index), "count", gone)
    survey.look_at_record()
    survey.look_at_index()
    told = shown(figures)
    assert told[key("memvault_store_up", store="record")] == 0
    assert told[key("memvault_store_up", store="index")] == 0
    assert client_of(services).get("/metrics").status_code == 200


def test_what_is_not_looked_at_any_more_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("service.clock.monotonic", lambda: now[0])
    figures = Figures()
    figures.set("memvault_outbox_rows", {(): 7}, good_for=20)
    figures.set("memvault_store_up", {("record",): 1}, good_for=20, by="record", zero_after=True)
    figures.ask("memvault_data_free_bytes", lambda: {(): 1 / 0})
    now[0] += 10
    assert shown(figures) == {key("memvault_outbox_rows"): 7, key("memvault_store_up", store="record"): 1}
    now[0] += 20
    # A look that hangs says nothing, and a store that says nothing is away.
    assert shown(figures) == {key("memvault_store_up", store="record"): 0}


@pytest.fixture
def client_of(stack: ExitStack) -> Callable[[Services], TestClient]:
    return lambda services: stack.enter_context(TestClient(create_app(services), raise_server_exceptions=False))


def test_the_token_guards_the_metrics_and_not_the_probes(
    make_services: MakeServices, client_of: Callable[[Services], TestClient]
) -> None:
    client = client_of(make_services(metrics={"token": TOKEN}))
    refused = client.get("/metrics")
    assert (refused.status_code, refused.headers["www-authenticate"][:6]) == (401, "Bearer")
    assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer \xe4".encode("latin-1")}).status_code == 401
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert "memvault_build_info" in answer.text
    assert client.get("/readyz").status_code == 200


def test_refusals_are_counted(
    services: Services, tenant: TenantId, client_of: Callable[[Services], TestClient]
) -> None:
    client = client_of(services)
    _, secret = principal_of(services, tenant, role="reader")

    def counted() -> dict[Sample, float]:
        return samples(client.get("/metrics").text)

    before = counted()
    client.get("/v1/ping/", headers={"Authorization": "Token mv_wrong"})
    body = {"messages": [{"role": "user", "content": "x"}], "user_id": "ada", "infer": False}
    assert client.post("/v3/memories/add/", json=body, headers={"Authorization": f"Token {secret}"}).status_code == 403
    after = counted()
    for one in (key("memvault_auth_refusals_total", face="rest"), key("memvault_refusals_total", reason="permission")):
        assert after[one] == before.get(one, 0) + 1
    assert key("memvault_pool_connections", state="most") in after
    assert after[key("memvault_data_free_bytes")] > 0


def test_tools_are_counted_by_how_they_went(
    services: Services, tenant: TenantId, client_of: Callable[[Services], TestClient]
) -> None:
    client = client_of(services)
    _, secret = principal_of(services, tenant)

    def call(arguments: dict[str, Any]) -> httpx.Response:
        return client.post(
            "/mcp",
            json={
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "search_memories", "arguments": arguments},
            },
            headers={
                "Authorization": f"Bearer {secret}",
                "Accept": "application/json, text/event-stream",
                "Host": "127.0.0.1",
                "MCP-Protocol-Version": "2025-11-25",
            },
        )

    def count(outcome: str) -> float:
        told = samples(client.get("/metrics").text)
        return told.get(key("memvault_mcp_calls_total", tool="search_memories", outcome=outcome), 0.0)

    before = count("ok"), count("refused")
    assert call({"query": "bees", "filters": {"user_id": "ada"}}).status_code == 200
    assert call({"query": "", "filters": {"user_id": "ada"}}).status_code == 200
    assert (count("ok"), count("refused")) == (before[0] + 1, before[1] + 1)


def test_few_tenants_have_series_of_their_own_and_no_call_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.clock import new_id

    now = [0.0]
    monkeypatch.setattr("service.observability.per_tenant.clock.monotonic", lambda: now[0])
    use = LlmUse()
    use.configure(tenants=2, input_cost=10, output_cost=20)
    tenants = [new_id() for _ in range(50)]

    def calls() -> dict[str, float]:
        (family, *_) = use.collect()
        return {one.labels["tenant"]: one.value for one in family.samples}

    for one in tenants:
        use.count(one, read=1_000_000, written=500_000)
    assert len(calls()) == 3
    assert sum(calls().values()) == 50
    heavy = tenants[40]
    for _ in range(100):
        use.count(heavy, read=10)
    now[0] += 1000
    use.count(heavy, read=1_000_000_000)
    assert len(calls()) == 3
    assert str(heavy) in calls()
    cost = {one.labels["tenant"]: one.value for one in list(use.collect())[2].samples}
    assert cost["other"] == pytest.approx(48 * 20, rel=0.01)
    use.configure(tenants=0, input_cost=0, output_cost=0)
    assert set(calls()) == {"other"}


def test_a_verification_is_noted(services: Services) -> None:
    figures = Figures()
    survey = survey_of(services, figures)
    survey.look_at_record()
    assert key("memvault_audit_verify_ok") not in shown(figures)
    for ok in (True, False):
        wiring.note_verification(services.installation, ok=ok)
        survey.look_at_record()
        assert shown(figures)[key("memvault_audit_verify_ok")] == ok
    assert shown(figures)[key("memvault_audit_verify_timestamp_seconds")] == pytest.approx(time.time(), abs=60)
