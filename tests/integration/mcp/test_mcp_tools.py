"""The tools: each one's success with an answer that meets its schema, and what they say when something is wrong."""

from __future__ import annotations

import json
import re
from threading import Event
from typing import Any
from uuid import uuid4

import jsonschema
import pytest

from service.auth.keys import Grant
from service.filters.ast import Op
from service.policy.table import ROLES
from service.scope import TenantId
from service.wiring import Services
from tests.conftest import MakeServices, caller_of, principal_of
from tests.integration.mcp.conftest import MakeWire
from tests.integration.mcp.served import Wire, serve
from tests.integration.memories.test_quarantine import review
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

MEM0_TOOLS = {
    "add_memory": {"text", "messages", "user_id", "agent_id", "app_id", "run_id", "identity", "metadata", "infer"},
    "search_memories": {"query", "filters", "identity", "limit"},
    "get_memories": {"filters", "identity", "page", "page_size"},
    "get_memory": {"memory_id"},
    "update_memory": {"memory_id", "text", "metadata"},
    "delete_memory": {"memory_id"},
    "delete_all_memories": {"user_id", "agent_id", "app_id", "run_id"},
    "delete_entities": {"user_id", "agent_id", "app_id", "run_id"},
    "list_entities": set(),
    "list_events": set(),
    "get_event_status": {"event_id"},
}
OUR_TOOLS = {
    "get_user_context": {"query", "user_id", "identity", "connectors", "max_tokens"},
    "store_interaction_summary": {"summary", "channel", "connector", "labels", "user_id", "identity"},
}


def tools_of(wire: Wire) -> dict[str, Any]:
    """The tools that a key sees, by name."""
    return {tool["name"]: tool for tool in wire.modern("tools/list").json()["result"]["tools"]}


def added(wire: Wire, text: str, **more: Any) -> str:
    """Store a text as it is and return its id."""
    more.setdefault("user_id", "alice")
    result = wire.done("add_memory", text=text, infer=False, **more)["results"][0]
    assert result["event"] == "ADD"
    memory_id: str = result["id"]
    return memory_id


def texts(answer: dict[str, Any]) -> list[str]:
    """The texts of an answer's results."""
    return [one["memory"] for one in answer["results"]]


def test_the_tools_have_the_names_and_inputs_that_agents_know(wire: Wire) -> None:
    tools = tools_of(wire)
    assert set(tools) == set(MEM0_TOOLS) | set(OUR_TOOLS)
    for name, inputs in (MEM0_TOOLS | OUR_TOOLS).items():
        assert inputs <= set(tools[name]["inputSchema"]["properties"]), name


def test_every_tool_says_what_an_agent_must_know(wire: Wire) -> None:
    for name, tool in tools_of(wire).items():
        assert len(tool["description"]) > 60, name
        hints = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
        assert all(isinstance(tool["annotations"][hint], bool) for hint in hints), name
        assert tool["annotations"]["destructiveHint"] is (name.startswith(("delete", "update"))), name
        assert tool["annotations"]["readOnlyHint"] is name.startswith(("get", "list", "search")), name
        for kind in ("inputSchema", "outputSchema"):
            jsonschema.Draft202012Validator.check_schema(tool[kind])
            assert tool[kind]["type"] == "object", name


def test_a_filter_can_be_written_by_its_description(wire: Wire) -> None:
    for name in ("search_memories", "get_memories"):
        told = tools_of(wire)[name]["inputSchema"]["properties"]["filters"]["description"]
        assert {one.value for one in Op} <= set(re.findall(r"\w+", told)), name


def test_every_answer_meets_its_schema_and_comes_as_text_too(wire: Wire) -> None:
    tools = tools_of(wire)
    memory_id = added(wire, "Alice likes green tea", metadata={"connector": "slack", "note": None}, agent_id="helper")
    event_id = wire.done("list_events")["results"][0]["id"]
    calls: list[tuple[str, dict[str, Any]]] = [
        ("add_memory", {"text": "Alice plays chess", "user_id": "alice"}),
        ("add_memory", {"messages": [{"role": "user", "content": "I row"}], "user_id": "alice", "infer": False}),
        ("search_memories", {"query": "what does Alice drink?", "filters": {"user_id": "alice"}, "limit": 3}),
        ("get_memories", {"filters": {"user_id": "alice"}, "page": 1, "page_size": 2}),
        ("get_memory", {"memory_id": memory_id}),
        ("update_memory", {"memory_id": memory_id, "text": "Alice likes black tea", "metadata": {"a": [1, None]}}),
        ("list_entities", {}),
        ("list_events", {"page_size": 1}),
        ("get_event_status", {"event_id": event_id}),
        ("get_user_context", {"query": "tea", "user_id": "alice", "max_tokens": 200}),
        ("store_interaction_summary", {"summary": "s", "channel": "#c", "connector": "slack", "user_id": "alice"}),
        ("delete_memory", {"memory_id": memory_id}),
        ("delete_all_memories", {"user_id": "alice"}),
        ("delete_entities", {"user_id": "alice"}),
    ]
    assert {name for name, _ in calls} == set(tools)
    for name, arguments in calls:
        result = wire.call(name, **arguments)
        assert not result["isError"], (name, result["content"])
        validator = jsonschema.Draft202012Validator(tools[name]["outputSchema"])
        validator.validate(result["structuredContent"])
        assert result["content"][0]["type"] == "text"
        assert result["content"][0]["text"]
        if name != "get_user_context":
            assert json.loads(result["content"][0]["text"]) == result["structuredContent"], name


def test_a_memory_lives_and_dies(wire: Wire) -> None:
    memory_id = added(wire, "Alice's flight leaves at noon", metadata={"connector": "mail"})
    assert texts(wire.done("search_memories", query="when is the flight?"))[0] == "Alice's flight leaves at noon"
    changed = wire.done("update_memory", memory_id=memory_id, text="Alice's flight leaves at one")
    assert changed["memory"] == "Alice's flight leaves at one"
    assert changed["metadata"] == {"connector": "mail"}, "metadata that is not given stays"
    assert wire.done("get_memory", memory_id=memory_id) == changed
    assert wire.done("delete_memory", memory_id=memory_id)["deleted"] == 1
    assert wire.refused("get_memory", memory_id=memory_id).startswith("not_found: ")
    assert texts(wire.done("search_memories", query="when is the flight?")) == []


def test_lists_come_in_pages(wire: Wire) -> None:
    for number in range(3):
        added(wire, f"fact {number}", user_id=f"user{number}")
    first = wire.done("get_memories", page_size=2)
    second = wire.done("get_memories", page_size=2, page=2)
    assert (first["count"], first["has_more"], second["has_more"]) == (3, True, False)
    assert wire.done("get_memories", page_size=3)["has_more"] is False
    assert texts(first) + texts(second) == ["fact 2", "fact 1", "fact 0"]
    assert [one["name"] for one in wire.done("list_entities", page_size=2, page=2)["results"]] == ["user2"]
    assert wire.done("list_events", page_size=1)["has_more"] is True


def test_only_what_was_named_is_deleted(wire: Wire) -> None:
    added(wire, "of alice")
    added(wire, "of bob", user_id="bob")
    assert wire.refused("delete_all_memories").startswith("scope_required: ")
    assert "name one of user_id" in wire.refused("delete_entities")
    assert "name one of user_id" in wire.refused("delete_entities", user_id="alice", agent_id="x")
    assert wire.done("delete_all_memories", user_id="alice")["deleted"] == 1
    assert texts(wire.done("get_memories")) == ["of bob"]
    assert wire.done("delete_entities", user_id="bob")["deleted"] == 1
    assert wire.refused("delete_entities", user_id="bob").startswith("not_found: ")
    assert [one["name"] for one in wire.done("list_entities")["results"]] == ["alice"]


#: A tool, arguments that it cannot take, and a part of what it then says.
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("search_memories", {}, "query: is needed"),
    ("search_memories", {"query": "x", "top_k": 3}, "no such argument; search_memories takes query, filters"),
    ("search_memories", {"query": "x", "user_id": "a"}, "user_id: goes into filters; search_memories takes query"),
    ("get_memory", dict.fromkeys("abcdef", "x"), "and more: there are no such arguments; get_memory takes memory_id"),
    ("add_memory", {"messages": [{"content": "x", "txt": "y"}], "user_id": "a"}, "messages.0.txt: there is no such f"),
    ("search_memories", {"query": "x", "limit": 0}, "limit: "),
    ("search_memories", {"query": " "}, "query: must not be empty"),
    ("search_memories", {"query": "x", "filters": {"colour": "red"}}, "filters: unknown key colour"),
    ("search_memories", {"query": "x", "filters": [1]}, "filters: must be an object"),
    ("search_memories", {"query": "x", "filters": "alice"}, "filters: must be an object"),
    (
        "search_memories",
        {"query": "x", "filters": '{"user_id": "alice"'},
        "filters: is not valid JSON (line 1, column 2",
    ),
    ("search_memories", {"query": "x", "filters": '{"user_id": "a", "user_id": "b"}'}, "filters: a key stands twice"),
    ("search_memories", {"query": "x", "filters": '{"colour": "red"}'}, "filters: unknown key colour"),
    ("search_memories", {"query": "x", "filters": "[" * 70_000}, "filters: must be an object"),
    ("search_memories", {"query": "x", "filters": "[" * 60_000}, "filters: is not valid JSON"),
    ("search_memories", {"query": "\ud800"}, "query: "),
    ("get_memories", {"page": 10**30}, "page: "),
    ("get_user_context", {"query": "x", "user_id": "\ud800"}, "user_id: "),
    ("get_user_context", {"query": "x", "user_id": "a", "connectors": ["\ud800"]}, "connectors"),
    ("delete_entities", {"user_id": "\ud800"}, "user_id: "),
    ("add_memory", {"user_id": "alice"}, "give text, or messages"),
    ("add_memory", {"text": "x"}, "name whose memory it is"),
    ("add_memory", {"text": " ", "user_id": "a"}, "text: must not be empty"),
    ("add_memory", {"messages": "x", "user_id": "a"}, "messages: must be a list"),
    ("add_memory", {"messages": ["x"], "user_id": "a"}, "messages.0: must be an object"),
    ("add_memory", {"messages": [{"content": ["x"]}], "user_id": "a"}, "messages.0.content: must be a text"),
    ("add_memory", {"text": "x", "user_id": 5}, "user_id: must be a text"),
    ("add_memory", {"text": "x", "user_id": "a", "metadata": {"user_id": "b"}}, "the key user_id is reserved"),
    ("add_memory", {"text": "x", "user_id": "a", "metadata": {"k": "\ud800"}}, "metadata: "),
    ("add_memory", {"text": "\x00", "user_id": "a"}, "null byte"),
    ("add_memory", {"messages": [{"role": "tool", "content": "x"}], "user_id": "a"}, "messages.0.role: "),
    ("update_memory", {"memory_id": str(uuid4())}, "text: is needed"),
    ("get_memory", {"memory_id": "42"}, "not_found: "),
    ("get_event_status", {"event_id": str(uuid4())}, "not_found: "),
    ("get_user_context", {"query": "x"}, "say whose context"),
    ("get_user_context", {"query": "x", "user_id": "a", "max_tokens": 1}, "max_tokens: "),
    ("store_interaction_summary", {"summary": "x", "channel": "c", "user_id": "a"}, "connector: "),
    (
        "store_interaction_summary",
        {"summary": " ", "channel": "c", "connector": "c", "user_id": "a"},
        "summary: must not be empty",
    ),
    ("store_interaction_summary", {"summary": "x", "channel": "c", "connector": "c"}, "say whose interaction"),
]


def test_wrong_arguments_are_told_to_the_agent(wire: Wire) -> None:
    said = [(tool, arguments, wire.refused(tool, **arguments)) for tool, arguments, _ in WRONG]
    unhelpful = [one for one, (_, _, told) in zip(said, WRONG, strict=True) if told not in one[2]]
    assert not unhelpful


def test_an_object_or_a_list_may_come_as_a_text_of_it(wire: Wire) -> None:
    said = '[{"role": "user", "content": "Alice rows"}, {"role": "user", "content": "[1, 2] are her boats"}]'
    about = ' {"connector": "slack", "boat": {"seats": 2}}'
    memory_id = wire.done("add_memory", messages=said, metadata=about, user_id="alice", infer=False)["results"][1]["id"]
    found = wire.done("get_memories", filters='{"AND": [{"user_id": "alice"}, {"metadata": {"boat": {"seats": 2}}}]}')
    assert sorted(texts(found)) == ["Alice rows", "[1, 2] are her boats"]
    # What is a text stays one.
    assert wire.done("update_memory", memory_id=memory_id, text="[3]", metadata='{"n": 1}')["memory"] == "[3]"
    asked = wire.done("get_user_context", query="{}", user_id="alice", connectors='["slack"]')
    assert [one["text"] for one in asked["snippets"]] == ["Alice rows"]
    summary = {"summary": "{}", "channel": "c", "connector": "crm", "user_id": "alice", "labels": '["escalation"]'}
    stored = wire.done("get_memory", memory_id=wire.done("store_interaction_summary", **summary)["id"])
    assert (stored["memory"], stored["metadata"]["labels"]) == ("{}", ["escalation", "interaction_summary"])


def test_an_argument_of_mem0_without_meaning_is_passed_over(wire: Wire) -> None:
    assert wire.done("search_memories", query="x", enable_graph=False) == {"results": []}


def test_adds_are_extracted_in_the_background_with_a_language_model(make_services: MakeServices) -> None:
    with ScriptedLLM() as llm:
        flags = {"provider": "openai", "model": "scripted", "api_key": "sk-scripted", "base_url": llm.url}
        services = make_services(worker=True, llm=flags)
        llm.facts("Alice collects stamps")
        tenant = services.installation.tenants.create("acme").id
        with serve(lambda: services, services.settings) as url:
            wire = Wire(url, principal_of(services, tenant)[1])
            pending = wire.done("add_memory", text="I collect stamps", user_id="alice")
            assert (pending["status"], pending["results"]) == ("PENDING", [])
            assert "get_event_status" in pending["message"]
            event = settled(wire, pending["event_id"])
            assert event["status"] == "SUCCEEDED", event
            assert [one["memory"] for one in event["results"]] == ["Alice collects stamps"]
            summary = wire.done(
                "store_interaction_summary", summary="As it is", channel="c", connector="crm", user_id="alice"
            )
            assert wire.done("get_memory", memory_id=summary["id"])["memory"] == "As it is"


def settled(wire: Wire, event_id: str) -> dict[str, Any]:
    """Ask for an event until it changes no more."""
    for _ in range(300):
        event = wire.done("get_event_status", event_id=event_id)
        if event["status"] not in ("PENDING", "RUNNING"):
            return event
        Event().wait(0.1)
    raise AssertionError("the event never ended")


def test_what_waits_for_a_reviewer_is_not_called_stored(services: Services, tenant: TenantId, wire: Wire) -> None:
    review(services, caller_of(services, tenant))
    answer = wire.done("add_memory", text="Alice likes tea", user_id="alice")
    assert [one["event"] for one in answer["results"]] == ["QUARANTINED"]
    assert answer["message"].startswith("Waiting for a reviewer")


def test_a_system_agent_of_one_user_is_shown_what_it_must_give(
    services: Services, tenant: TenantId, url: str, wire_of: MakeWire
) -> None:
    grant = Grant(ROLES["agent"], must_name_user=True, users=frozenset({"alice"}))
    bound = Wire(url, services.installation.keys.mint_for_installation(tenant, grant).secret)
    for name, tool in tools_of(bound).items():
        schema = tool["inputSchema"]
        assert "user_id" in schema["required"], name
        assert set(schema["required"]) <= schema["properties"].keys(), name
    assert bound.done("add_memory", text="Alice sails", infer=False, user_id="alice")["results"]


def test_what_the_service_cannot_do_now_is_told_with_a_time(services: Services, wire: Wire) -> None:
    services.index.close()
    told = wire.refused("search_memories", query="anything")
    assert told.startswith("index_unavailable: ")
    assert "try again in" in told


def test_the_agent_keys_bounds_fill_in_what_they_settle(wire_of: MakeWire) -> None:
    bound = wire_of(role="agent", users=frozenset({"alice"}))
    tools = tools_of(bound)
    for name in ("add_memory", "get_user_context", "store_interaction_summary"):
        assert "user_id" not in tools[name]["inputSchema"]["properties"], name
    assert "takes agent_id, " in bound.refused("add_memory", txt="Alice sails")
    memory_id = bound.done("add_memory", text="Alice sails", infer=False)["results"][0]["id"]
    assert bound.done("get_memory", memory_id=memory_id)["user_id"] == "alice"
    assert "Alice sails" in bound.done("get_user_context", query="sport")["context"]
    summary = bound.done("store_interaction_summary", summary="Talked boats", channel="call", connector="phone")
    assert bound.done("get_memory", memory_id=summary["id"])["user_id"] == "alice"
    assert bound.refused("delete_all_memories").startswith("scope_required: "), "what is deleted must be named"
    assert bound.done("delete_all_memories", user_id="alice")["deleted"] == 2
