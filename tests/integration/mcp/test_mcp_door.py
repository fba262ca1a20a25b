"""The door: credential, origin, host, readiness and the two forms of the protocol, by plain HTTP."""

from __future__ import annotations

import json

import httpx
import pytest

from service.api.opening import Opening
from service.wiring import Services
from tests.conftest import MakeServices, principal_of
from tests.integration.mcp.served import ACCEPT, MODERN, Wire, serve

pytestmark = pytest.mark.integration


def test_without_a_valid_key_nothing_is_answered(url: str, wire: Wire) -> None:
    for key, told in ((None, 'Bearer realm="memvault"'), ("mv_wrong", 'error="invalid_token"')):
        for answer in (Wire(url, key).modern("tools/list"), Wire(url, key).legacy("initialize")):
            assert answer.status_code == 401
            assert told in answer.headers["www-authenticate"]
            assert answer.json()["error"]["data"]["code"] == "unauthenticated"
    assert wire.modern("tools/list").status_code == 200


@pytest.mark.parametrize("header", ["Bearer {}", "bearer  {}", "Token {}"])
def test_a_key_may_come_in_each_usual_header(url: str, wire: Wire, header: str) -> None:
    bare = Wire(url)
    assert bare.modern("tools/list", authorization=header.format(wire.key)).status_code == 200
    assert bare.modern("tools/list", x_api_key=str(wire.key)).status_code == 200
    assert bare.modern("tools/list", authorization=f"Basic {wire.key}").status_code == 401


def test_a_web_page_of_another_origin_is_refused(wire: Wire) -> None:
    assert wire.modern("tools/list", origin="https://evil.example").status_code == 403
    assert wire.modern("tools/list", origin="null").status_code == 403
    assert wire.modern("tools/list", origin="http://localhost:3000").status_code == 200
    answer = wire.modern("tools/list", host="evil.example")
    assert answer.status_code == 421
    assert "server.allowed_hosts" in answer.json()["error"]["message"]


def test_until_the_services_are_there_the_answer_is_503(services: Services) -> None:
    with serve(Opening(lambda: services).services, services.settings) as url:
        answer = Wire(url, "mv_any").modern("tools/list")
    assert answer.status_code == 503
    assert answer.json()["error"]["data"]["code"] == "starting"
    assert int(answer.headers["retry-after"]) > 0


def test_there_are_no_sessions_to_open_or_end(wire: Wire) -> None:
    headers = {"authorization": f"Bearer {wire.key}", "accept": ACCEPT}
    for method in ("GET", "DELETE", "PUT"):
        answer = httpx.request(method, f"{wire.url}/mcp", headers=headers, timeout=10)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_trailing_slash_is_no_redirect(wire: Wire) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"authorization": f"Bearer {wire.key}", "accept": ACCEPT}
    assert httpx.post(f"{wire.url}/mcp/", json=body, headers=headers).json()["result"] == {}


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25"])
def test_the_handshake_era(wire: Wire, version: str) -> None:
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    opened = wire.legacy("initialize", hello, version)
    assert opened.headers["content-type"] == "application/json"
    assert "mcp-session-id" not in opened.headers
    result = opened.json()["result"]
    assert result["protocolVersion"] == version
    assert result["serverInfo"]["name"] == "memvault"
    assert result["instructions"]

    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert wire.post(note, mcp_protocol_version=version).status_code == 202
    tools = wire.legacy("tools/list", version=version).json()["result"]["tools"]
    assert len(tools) == 13
    called = wire.legacy("tools/call", {"name": "list_entities", "arguments": {}}, version).json()["result"]
    assert called["structuredContent"]["count"] == 0
    # A client of 2025 may leave the version header out.
    assert wire.post({"jsonrpc": "2.0", "id": 9, "method": "tools/list"}).json()["id"] == 9


def test_the_stateless_era(wire: Wire) -> None:
    found = wire.modern("server/discover").json()["result"]
    assert MODERN in found["supportedVersions"]
    listed = wire.modern("tools/list").json()["result"]
    assert listed["cacheScope"] == "private"
    assert listed["ttlMs"] > 0
    called = wire.call("list_entities")
    assert called["structuredContent"]["count"] == 0
    assert called["resultType"] == "complete"


def test_errors_of_the_protocol_have_their_numbers(wire: Wire) -> None:
    unknown = {"name": "drop_everything", "arguments": {}}
    for ask in (wire.modern, wire.legacy):
        assert ask("tools/call", unknown).json()["error"]["code"] == -32602
        assert ask("tools/list", {"cursor": "bm90LW91cnM"}).json()["error"]["code"] == -32602
        assert ask("prompts/get", {"name": "nope"}).json()["error"]["code"] == -32602
        assert ask("resources/read", {"uri": "memory://nope"}).json()["error"]["code"] == -32602
        assert ask("no/such/method").json()["error"]["code"] == -32601


def test_a_body_over_the_limit_is_413(wire: Wire) -> None:
    answer = wire.modern("tools/call", {"name": "add_memory", "arguments": {"text": "x" * 5_000_000}})
    assert answer.status_code == 413


def test_a_revoked_key_stops(make_services: MakeServices) -> None:
    services = make_services(auth={"cache_seconds": 0})
    principal, key = principal_of(services, services.installation.tenants.create("acme").id)
    with serve(lambda: services, services.settings) as url:
        assert Wire(url, key).modern("tools/list").status_code == 200
        services.installation.keys.revoke_for_installation(principal.tenant_id, principal.id)
        assert Wire(url, key).modern("tools/list").status_code == 401


def test_configured_hosts_are_let_in_on_any_port(make_services: MakeServices) -> None:
    services = make_services(server={"allowed_hosts": ["memory.example.com"]}, auth={"cache_seconds": 0})
    key = principal_of(services, services.installation.tenants.create("acme").id)[1]
    with serve(lambda: services, services.settings) as url:
        wire = Wire(url, key)
        for host in ("memory.example.com", "memory.example.com:8443", "localhost", "127.0.0.1:80"):
            assert wire.modern("tools/list", host=host, origin=f"https://{host}").status_code == 200, host
        for host in ("memory.example.com.evil.org", "evil.org", "localhost.evil.org"):
            assert wire.modern("tools/list", host=host).status_code == 421, host
            assert wire.modern("tools/list", origin=f"https://{host}").status_code == 403, host


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
def test_of_two_equal_keys_neither_wins(wire: Wire, version: str) -> None:
    body = (
        '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "delete_all_memories", '
        '"arguments": {"user_id": "carl", "user_id": "dora"}}}'
    )
    headers = {
        "authorization": f"Bearer {wire.key}",
        "accept": ACCEPT,
        "content-type": "application/json",
        "mcp-protocol-version": version,
        "mcp-method": "tools/call",
        "mcp-name": "delete_all_memories",
    }
    answer = httpx.post(f"{wire.url}/mcp", content=body, headers=headers, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32600
    assert "twice" in answer.json()["error"]["message"]
    assert "dora" not in answer.text


@pytest.mark.parametrize(
    "odd",
    [{"jsonrpc": "1.0"}, {"method": 7}, {"params": ["PIN 1234"]}, {"params": "PIN 1234"}],
    ids=repr,
)
def test_what_is_no_message_is_refused_without_its_words(wire: Wire, odd: dict[str, object]) -> None:
    call = {"name": "add_memory", "arguments": {"text": "PIN 1234"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call} | odd
    for body in (message, [message]):
        answer = wire.post(body, mcp_protocol_version="2025-11-25")
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == -32600
        assert "PIN" not in answer.text


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
@pytest.mark.parametrize(
    ("body", "number", "told"),
    [
        (b'{"jsonrpc": "2.0", "id": 1, "method": "PIN 1234', -32700, "not valid JSON"),
        (b"[" * 40_000, -32700, "not valid JSON"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": %d}}' % 10**1_000, -32700, "not valid JSON"),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode("utf-16"), -32700, "not valid JSON"),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode("utf-16-le"), -32700, "not valid JSON"),
        (
            json.dumps({"jsonrpc": "2.0", "method": "notifications/x", "params": {"PIN 1234": [[]] * 60_000}}).encode(),
            -32600,
            "more than 50000 values",
        ),
    ],
    ids=["broken", "deep", "digits", "utf-16", "utf-16-le", "many"],
)
def test_what_the_protocol_need_not_read_does_not_reach_it(
    wire: Wire, version: str, body: bytes, number: int, told: str
) -> None:
    headers = {
        "authorization": f"Bearer {wire.key}",
        "accept": ACCEPT,
        "content-type": "application/json",
        "mcp-protocol-version": version,
    }
    answer = httpx.post(f"{wire.url}/mcp", content=body, headers=headers, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == number
    assert told in answer.json()["error"]["message"]
    assert "PIN" not in answer.text


def test_as_many_messages_as_an_add_may_bring_reach_the_tool(wire: Wire) -> None:
    messages = [{"role": "user", "content": "x", "name": "n"}] * 10_000
    assert "limits.messages" in wire.refused("add_memory", messages=messages, user_id="alice")
