"""Calls that take long: progress in both forms of the protocol, an end when the client goes, and a time limit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from service.main import create_app
from service.scope import TenantId
from service.wiring import Services
from tests.clients.serving import serving
from tests.conftest import MakeServices, Postgres, principal_of
from tests.integration.mcp.served import ACCEPT, MODERN, Wire, serve
from tests.integration.mcp.test_mcp_tools import added

pytestmark = pytest.mark.integration


@contextmanager
def blocked(database: Postgres) -> Iterator[None]:
    """Let every action wait that looks at memories."""
    with psycopg.connect(database.admin) as blocker:
        blocker.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
        yield


def called(wire: Wire, tool: str, *, modern: bool, token: str | None = "t", **arguments: Any) -> httpx.Request:
    """Return the request of a call that asks for progress."""
    timeout = httpx.Timeout(20).as_dict()
    meta: dict[str, Any] = {} if token is None else {"progressToken": token}
    headers = {"accept": ACCEPT, "authorization": f"Bearer {wire.key}", "mcp-protocol-version": "2025-11-25"}
    if modern:
        meta["io.modelcontextprotocol/protocolVersion"] = MODERN
        meta["io.modelcontextprotocol/clientCapabilities"] = {}
        headers |= {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": tool}
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return httpx.Request("POST", f"{wire.url}/mcp", json=body, headers=headers, extensions={"timeout": timeout})


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The messages of an event stream, as they come."""
    for line in response.iter_lines():
        if line.startswith("data:") and line[5:].strip():
            yield json.loads(line[5:])


@pytest.mark.parametrize("modern", [True, False], ids=["stateless", "handshake"])
def test_a_long_call_tells_of_its_progress(wire: Wire, database: Postgres, modern: bool) -> None:
    added(wire, "of alice")
    heard: list[float] = []
    with httpx.Client(timeout=20) as client:
        with blocked(database):
            response = client.send(called(wire, "delete_all_memories", modern=modern, user_id="alice"), stream=True)
            assert response.headers["content-type"].startswith("text/event-stream")
            messages = events(response)
            for message in messages:
                assert message["method"] == "notifications/progress"
                assert message["params"]["progressToken"] == "t"
                assert message["params"]["message"]
                heard.append(message["params"]["progress"])
                if len(heard) == 2:
                    break
        last = next(message for message in messages if "result" in message)
        response.close()
    assert heard == sorted(set(heard))
    assert last["result"]["structuredContent"]["deleted"] == 1


def test_a_short_call_is_plain_json_and_one_without_a_token_hears_nothing(wire: Wire, database: Postgres) -> None:
    with httpx.Client(timeout=20) as client:
        assert client.send(called(wire, "list_events", modern=True)).headers["content-type"] == "application/json"
        quiet = called(wire, "list_events", modern=False, token=None)
        assert client.send(quiet).headers["content-type"] == "application/json"
        for modern in (True, False):
            with ThreadPoolExecutor(1) as pool:
                with blocked(database):
                    asked = pool.submit(client.send, called(wire, "get_memories", modern=modern, token=None))
                    time.sleep(1.5)
                answer = asked.result(20)
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["result"]["structuredContent"]["count"] == 0


def test_whoever_takes_no_stream_gets_json(wire: Wire) -> None:
    for modern in (True, False):
        request = called(wire, "list_events", modern=modern)
        request.headers["accept"] = "application/json"
        with httpx.Client(timeout=20) as client:
            assert client.send(request).headers["content-type"] == "application/json"


def test_a_call_whose_client_went_is_not_begun(make_services: MakeServices, database: Postgres) -> None:
    """What is given up while it waits for a thread never runs."""
    services = make_services(server={"threads": 2})
    tenant = services.installation.tenants.create("acme").id
    with serving(create_app(services)) as url, httpx.Client() as client, ThreadPoolExecutor(2) as pool:
        wire = Wire(url, principal_of(services, tenant)[1])
        memory_id = added(wire, "stays")
        with blocked(database):
            waiting = [pool.submit(wire.call, "get_memories") for _ in range(2)]
            time.sleep(0.5)
            delete = called(wire, "delete_memory", modern=True, memory_id=memory_id)
            delete.extensions["timeout"]["read"] = 0.5
            with pytest.raises(httpx.ReadTimeout):
                client.send(delete)
        assert all(not one.result(20)["isError"] for one in waiting)
        assert wire.done("get_memory", memory_id=memory_id)["memory"] == "stays"


def test_a_call_that_takes_too_long_is_answered_in_both_forms(
    services: Services, tenant: TenantId, database: Postgres
) -> None:
    with serve(lambda: services, services.settings, call_seconds=1.5) as url, httpx.Client(timeout=20) as client:
        wire = Wire(url, principal_of(services, tenant)[1])
        wire.done("get_memories")
        for modern in (True, False):
            with blocked(database):
                *told, last = events(client.send(called(wire, "get_memories", modern=modern)))
            assert [message["method"] for message in told] == ["notifications/progress"]
            assert last["result"]["isError"] is True
            assert last["result"]["content"][0]["text"].startswith("unavailable: no answer within 1.5 s")


def test_the_list_of_resources_comes_in_pages(services: Services, tenant: TenantId, wire: Wire) -> None:
    for number in range(120):
        added(wire, f"fact {number}", user_id=f"user{number}", agent_id="helper")
    first = wire.modern("resources/list").json()["result"]
    second = wire.legacy("resources/list", {"cursor": first["nextCursor"]}).json()["result"]
    assert "nextCursor" not in second
    found = [one["uri"] for one in first["resources"] + second["resources"]]
    assert found == [f"memory://users/user{number}" for number in range(120)]
    assert "fact 119" in wire.modern("resources/read", {"uri": found[-1]}).json()["result"]["contents"][0]["text"]

    users = frozenset(f"u{number:03}" for number in range(150))
    bound = Wire(wire.url, principal_of(services, tenant, users=users)[1])
    first = bound.modern("resources/list").json()["result"]
    second = bound.modern("resources/list", {"cursor": first["nextCursor"]}).json()["result"]
    assert [one["uri"][-4:] for one in first["resources"] + second["resources"]] == sorted(users)
    assert "nextCursor" not in second
    full = Wire(wire.url, principal_of(services, tenant, users=frozenset(sorted(users)[:100]))[1])
    whole = full.modern("resources/list").json()["result"]
    assert (len(whole["resources"]), "nextCursor" in whole) == (100, False)


@pytest.mark.parametrize("cursor", ["", "2", "users-0", "users-01", "users-²", "users-1 ", "users-99999999", "\ud800"])
def test_a_cursor_that_was_never_given_out_is_refused(wire: Wire, cursor: str) -> None:
    for ask in (wire.modern, wire.legacy):
        for method in ("resources/list", "tools/list", "prompts/list", "resources/templates/list"):
            error = ask(method, {"cursor": cursor}).json()["error"]
            assert error["code"] in ((-32602,) if cursor.isascii() else (-32602, -32700, -32600)), (method, error)
