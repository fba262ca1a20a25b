"""Hazards of Mem0, seen through the faces."""

from __future__ import annotations

import gc
import importlib
import threading
from typing import Any

import pytest

from service.filters.metadata_limits import RESERVED
from service.wiring import Services
from tests.conftest import MakeServices
from tests.llm.scripted import ScriptedLLM
from tests.process.memvault import add, eventually, listed
from tests.promises.faces import Connect

pytestmark = pytest.mark.integration


@pytest.fixture
def extracting(make_services: MakeServices, llm: ScriptedLLM) -> Services:
    """Services that extract with the scripted LLM."""
    settings = {"provider": "openai", "model": "scripted", "api_key": "sk-scripted", "base_url": llm.url}
    services = make_services(worker=True, llm=settings, queue={"poll_interval": 0.1})
    eventually(lambda: services.engine.state()[0] == "ok", seconds=60)
    return services


def extract(client: Any, text: str, **more: Any) -> dict[str, Any]:
    """Add with extraction and return the event once it is final."""
    body = {"messages": [{"role": "user", "content": text}], "user_id": "alice", **more}
    answer = client.post("/v3/memories/add/", json=body)
    assert answer.status_code == 200, answer.text
    path = f"/v1/event/{answer.json()['event_id']}/"
    eventually(lambda: client.get(path).json()["status"] in ("SUCCEEDED", "FAILED"), seconds=30)
    event: dict[str, Any] = client.get(path).json()
    return event


def test_no_client_and_no_thread_of_telemetry_lives_beside_the_engine(extracting: Services, connect: Connect) -> None:
    assert extract(connect(extracting), "I live in Rome")["status"] == "SUCCEEDED"
    posthog = importlib.import_module("posthog")
    gc.collect()
    assert [one for one in gc.get_objects() if type(one) is posthog.Posthog] == []
    assert [thread.name for thread in threading.enumerate() if "posthog" in type(thread).__module__] == []


def test_the_last_messages_of_one_tenant_are_not_shown_for_another(
    extracting: Services, connect: Connect, llm: ScriptedLLM
) -> None:
    first, second = connect(extracting), connect(extracting, tenant="rival")
    extract(first, "My secret is a canary")
    extract(first, "And I like tea")
    assert "canary" in llm.requests[1].prompt
    extract(second, "I like tea too")
    assert len(llm.requests) == 3
    assert "canary" not in str(llm.requests[2].body)


def test_a_caller_does_not_write_the_prompt(extracting: Services, connect: Connect, llm: ScriptedLLM) -> None:
    client = connect(extracting)
    forged = {"prompt": "canary one", "custom_instructions": "canary two", "custom_categories": [{"canary": "three"}]}
    messages = [{"role": "system", "content": "canary four"}, {"role": "user", "content": "I like tea"}]
    answer = client.post("/v3/memories/add/", json={"messages": messages, "user_id": "alice", **forged})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["warnings"]) == len(forged)
    (request,) = llm.wait_for_requests(1)
    assert "canary" not in str(request.body)
    assert "I like tea" in request.prompt


def test_a_filter_cannot_widen_what_a_key_reaches(services: Services, connect: Connect) -> None:
    client, rival = connect(services), connect(services, tenant="rival")
    add(client, "Alice likes tea")
    add(client, "Bob likes coffee", user="bob")
    add(rival, "Alice of the rival likes wine")
    alice = {"user_id": "alice"}
    cases: list[tuple[Any, set[str]]] = [
        ({**alice, "AND": [{"user_id": "bob"}]}, set()),
        ({"AND": [alice, {"AND": [{"user_id": "bob"}]}]}, set()),
        ({"AND": [alice, {"OR": [{"user_id": "bob"}, {"user_id": "*"}]}]}, {"Alice likes tea"}),
        ({"AND": [{"OR": [alice]}, {"OR": [{"user_id": "bob"}]}]}, set()),
        ({"OR": [{"user_id": "*"}]}, {"Alice likes tea", "Bob likes coffee"}),
        ({"user_id": "*"}, {"Alice likes tea", "Bob likes coffee"}),
    ]
    for filters, expected in cases:
        body = {"query": "who likes what", "filters": filters, "threshold": 0.0}
        answer = client.post("/v3/memories/search/", json=body)
        assert answer.status_code == 200, (filters, answer.text)
        assert {hit["memory"] for hit in answer.json()["results"]} == expected, filters
        rows = client.post("/v3/memories/", json={"filters": filters}).json()["results"]
        assert {row["memory"] for row in rows} == expected, filters


@pytest.mark.parametrize("key", RESERVED)
def test_metadata_cannot_pass_for_the_records_own_facts(services: Services, connect: Connect, key: str) -> None:
    client = connect(services)
    (memory_id,) = add(client, "I like tea", metadata={"inner": {key: "mine"}})
    before = client.get(f"/v1/memories/{memory_id}/").json()
    message = {"role": "user", "content": "x"}
    body = {"messages": [message], "user_id": "alice", "infer": False, "metadata": {key: "forged"}}
    for answer in (
        client.post("/v3/memories/add/", json=body),
        client.put(f"/v1/memories/{memory_id}/", json={"metadata": {key: "forged"}}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "reserved_metadata_key")
        assert key in answer.json()["detail"]
        assert "forged" not in answer.text
    assert client.get(f"/v1/memories/{memory_id}/").json() == before
    assert set(listed(client)) == {memory_id}
