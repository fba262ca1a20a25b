"""The MCP endpoint as an OAuth resource server: metadata, challenges, audience and scopes, as MCP asks for them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import httpx2
import psycopg
import pytest
import uvicorn
from mcp import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken, ProtectedResourceMetadata

from service.main import create_app
from service.scope import Limit
from service.settings import load_settings
from service.tenants import rates
from service.wiring import Services
from tests.clients.serving import serving
from tests.conftest import MakeServices, Postgres, principal_of
from tests.integration.mcp.served import MODERN, Wire
from tests.isolation.issuer import Issuer

pytestmark = pytest.mark.integration

PUBLIC = "http://127.0.0.1:8080"
METADATA = "/.well-known/oauth-protected-resource"
POINTER = f'resource_metadata="{PUBLIC}{METADATA}/mcp"'
AGENT = "memory:read memory:write memory:delete"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer."""
    with Issuer() as one:
        yield one


@pytest.fixture
def open_services(make_services: MakeServices, issuer: Issuer) -> Callable[..., Services]:
    """Open services that trust the issuer, with the tenant `acme`; keyword arguments change `auth.oidc`."""

    def opened(*, public_url: str = PUBLIC, **oidc: Any) -> Services:
        auth = {"cache_seconds": 0, "oidc": {**issuer.oidc, "refetch_wait": 0, **oidc}}
        services = make_services(server={"public_url": public_url}, auth=auth)
        services.installation.tenants.create("acme")
        return services

    return opened


@pytest.fixture
def trusting(open_services: Callable[..., Services]) -> Services:
    """Services that trust the issuer."""
    return open_services()


@pytest.fixture
def url(trusting: Services) -> Iterator[str]:
    """The base URL of the whole served app."""
    with serving(create_app(trusting)) as base:
        yield base


def test_the_metadata_stands_at_the_root_of_the_host_for_everybody(url: str, issuer: Issuer) -> None:
    for path in (METADATA, f"{METADATA}/mcp"):
        answer = httpx.get(
            url + path, headers={"Host": "memory.example.com", "Origin": "https://inspector.example.com"}
        )
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.json() == {
            "resource": f"{PUBLIC}/mcp",
            "authorization_servers": [issuer.url],
            "scopes_supported": ["memory:read", "memory:write", "memory:delete", "entity:delete"],
            "bearer_methods_supported": ["header"],
            "resource_name": "Memvault",
        }
        read = ProtectedResourceMetadata.model_validate_json(answer.content)
        assert str(read.authorization_servers[0]) == issuer.url
        assert httpx.post(url + path).status_code == 405


def test_without_an_issuer_there_is_no_metadata(services: Services) -> None:
    with serving(create_app(services)) as base:
        for path in (METADATA, f"{METADATA}/mcp"):
            answer = httpx.get(base + path)
            assert answer.status_code == 404
            assert answer.json()["code"] == "not_found"
        assert Wire(base).modern("tools/list").headers["www-authenticate"] == 'Bearer realm="memvault"'


def test_metadata_below_a_path_of_a_proxy(services: Services) -> None:
    oidc = {"issuer": "https://sso.example.com"}
    settings = load_settings(
        environ={}, flags={"server": {"public_url": "https://example.com/memory/"}, "auth": {"oidc": oidc}}
    )
    with serving(create_app(lambda: services, settings=settings)) as base:
        found = httpx.get(f"{base}{METADATA}/memory/mcp").json()
        assert found["resource"] == "https://example.com/memory/mcp"
        told = Wire(base).modern("tools/list", host="example.com")
        assert told.status_code in (401, 503)
        assert httpx.get(f"{base}{METADATA}").json() == found


def test_who_has_no_token_learns_where_to_get_one(url: str, issuer: Issuer) -> None:
    for answer in (Wire(url).modern("tools/list"), Wire(url).legacy("initialize"), httpx.get(f"{url}/mcp")):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == f'Bearer realm="memvault", {POINTER}, scope="{AGENT}"'
    for wrong in (issuer.token(exp=1), issuer.token(aud="https://other.example.com"), "mv_wrong"):
        answer = Wire(url, wrong).modern("tools/list")
        assert answer.status_code == 401
        told = answer.headers["www-authenticate"]
        assert told == f'Bearer realm="memvault", error="invalid_token", {POINTER}, scope="{AGENT}"'
        assert wrong not in answer.text


def test_a_token_for_another_resource_is_refused(url: str, issuer: Issuer) -> None:
    for audience in (PUBLIC, f"{PUBLIC}/", f"{PUBLIC}/mcp/", "https://other.example.com/mcp", [], "mcp"):
        assert Wire(url, issuer.token(aud=audience)).modern("tools/list").status_code == 401, audience
    assert Wire(url, issuer.token(aud=["https://other.example.com", f"{PUBLIC}/mcp"])).modern("tools/list").is_success


def test_a_token_in_the_url_is_refused(url: str, issuer: Issuer) -> None:
    token = issuer.token()
    for headers in ({}, {"Authorization": f"Bearer {token}"}):
        answer = httpx.post(f"{url}/mcp?access_token={token}", json={}, headers=headers)
        assert answer.status_code == 400
        assert answer.headers["www-authenticate"] == f'Bearer realm="memvault", error="invalid_request", {POINTER}'
        assert token not in answer.text
    assert Wire(url).modern("tools/list", cookie=f"access_token={token}").status_code == 401


def test_a_token_works_in_both_eras(url: str, issuer: Issuer) -> None:
    wire = Wire(url, issuer.token(scope=AGENT))
    wire.done("add_memory", text="alice drinks tea", infer=False)
    found = wire.done("search_memories", query="what does alice drink?")
    assert [hit["memory"] for hit in found["results"]] == ["alice drinks tea"]
    called = wire.legacy("tools/call", {"name": "get_memories", "arguments": {}}).json()["result"]
    assert called["structuredContent"]["count"] == 1
    told = "forbidden: the call is made for one user: name that user, and no other, as user_id"
    assert wire.refused("get_memories", filters={"user_id": "bob"}) == told


def test_a_tool_beyond_the_scopes_is_403_with_all_that_is_missing(url: str, issuer: Issuer, database: Postgres) -> None:
    wire = Wire(url, issuer.token(scope="memory:read"))
    tools = {tool["name"] for tool in wire.modern("tools/list").json()["result"]["tools"]}
    assert "add_memory" not in tools
    wanted = {
        "add_memory": "memory:write",
        "delete_memory": "memory:delete",
        "delete_entities": "entity:delete",
        "store_interaction_summary": "memory:write",
    }
    for tool, scope in wanted.items():
        call = {"name": tool, "arguments": {"text": "canary-4711"}}
        for answer in (wire.modern("tools/call", call, x_purpose="case 7"), wire.legacy("tools/call", call)):
            assert answer.status_code == 403
            told = answer.headers["www-authenticate"]
            assert told == f'Bearer realm="memvault", error="insufficient_scope", {POINTER}, scope="{scope}"'
            body = answer.json()
            assert (body["id"], body["error"]["data"]["code"]) == (1, "insufficient_scope")
            assert "canary" not in answer.text
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute(
            "SELECT client, face, purpose FROM audit WHERE event = 'access:denied' ORDER BY seq"
        ).fetchall()
    assert len(rows) == 2 * len(wanted)
    assert set(rows) == {("wire/1.2", "mcp", "case 7"), (rows[1][0], "mcp", None)}
    # What needs no more than the token has, and what is wrong in another way, goes its usual way.
    assert wire.modern("tools/call", {"name": "nope", "arguments": {}}).json()["error"]["code"] == -32602
    assert wire.done("get_memories")["count"] == 0


def test_what_is_beyond_the_scopes_counts_as_a_request(
    trusting: Services, url: str, issuer: Issuer, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a token fills the trail with refusals, as fast as it can send them."""
    monkeypatch.setattr(rates, "_KEPT_SECONDS", 600.0)
    call = {"name": "add_memory", "arguments": {"text": "tea", "infer": False}}
    # A user that is there: who names another counts before the message is read.
    assert Wire(url, issuer.token(scope="memory:write")).modern("tools/call", call).status_code == 200
    trusting.installation.tenants.set_limits("acme", {Limit.REQUESTS_PER_SECOND: 1})
    wire = Wire(url, issuer.token(scope="memory:read"))
    assert wire.modern("tools/call", call).status_code == 403
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE rate_buckets SET at = now() + interval '1 hour'")
    for answer in [wire.modern("tools/call", call) for _ in range(3)]:
        assert answer.status_code == 429
        body = answer.json()
        assert (body["id"], body["error"]["data"]["code"]) == (1, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-ratelimit-limit"] == "1"
    assert wire.modern("tools/list").status_code == 200
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM audit WHERE event = 'access:denied'").fetchone() == (1,)


def test_a_resource_beyond_the_scopes_is_403_too(url: str, issuer: Issuer) -> None:
    answer = Wire(url, issuer.token(scope="memory:write")).modern("resources/read", {"uri": "memory://users/alice"})
    assert answer.status_code == 403
    assert 'scope="memory:read"' in answer.headers["www-authenticate"]


def test_an_api_key_gets_an_error_that_an_agent_can_read(url: str, trusting: Services) -> None:
    key = principal_of(trusting, trusting.installation.tenants.get("acme").id, role="reader")[1]
    assert "forbidden: " in Wire(url, key).refused("add_memory", text="tea", user_id="alice")


def test_bodies_that_are_no_message_are_the_protocol_s_to_refuse(url: str, issuer: Issuer) -> None:
    wire = Wire(url, issuer.token())
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "delete_memory"}}
    for body in ([call], 7, None, "x", {}, {**call, "params": []}, {**call, "params": {"name": ["delete_memory"]}}):
        assert wire.post(body, mcp_protocol_version=MODERN).status_code in (400, 202), body
    headers = {"Authorization": f"Bearer {wire.key}", "Content-Type": "application/json", "Accept": "application/json"}
    for raw in (b"", b"{", b"\xff\xfe", b"[" * 20_000):
        answer = httpx.post(f"{url}/mcp", content=raw, headers=headers)
        assert 400 <= answer.status_code < 500, raw[:10]
    huge = {**call, "params": {"name": "delete_memory", "arguments": {"x": "x" * 5_000_000}}}
    assert wire.post(huge).status_code == 413


def test_two_ways_to_write_one_member_do_not_get_past_the_scopes(url: str, issuer: Issuer) -> None:
    """What the door reads in a body is a hint only: the protocol decides by what it reads itself."""
    token = issuer.token(scope="memory:read")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    headers |= {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    arguments = '"arguments": {"text": "tea", "user_id": "alice", "infer": false}'
    for names in (("get_memories", "add_memory"), ("add_memory", "get_memories")):
        members = ", ".join(f'"name": "{name}"' for name in names)
        raw = f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {{{members}, {arguments}}}}}'
        httpx.post(f"{url}/mcp", content=raw, headers=headers)
    assert Wire(url, token).done("get_memories")["count"] == 0


def test_foreign_names_of_scopes_are_used_wherever_a_client_reads_them(
    open_services: Callable[..., Services], issuer: Issuer
) -> None:
    services = open_services(scope_map={"mem.read": ["memory:read"], "mem.all": ["agent"]})
    with serving(create_app(services)) as url:
        assert httpx.get(url + METADATA).json()["scopes_supported"] == ["mem.read", "mem.all"]
        assert 'scope="mem.read mem.all"' in Wire(url).modern("tools/list").headers["www-authenticate"]
        wire = Wire(url, issuer.token(scope="mem.read memory:write"))
        answer = wire.modern("tools/call", {"name": "add_memory", "arguments": {"text": "tea"}})
        assert answer.status_code == 403
        assert 'scope="mem.all"' in answer.headers["www-authenticate"]


def test_while_the_issuer_is_away_a_token_is_503_and_a_key_works(
    open_services: Callable[..., Services], issuer: Issuer
) -> None:
    issuer.status = 500
    services = open_services()
    key = principal_of(services, services.installation.tenants.get("acme").id)[1]
    with serving(create_app(services)) as url:
        answer = Wire(url, issuer.token()).modern("tools/list")
        assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert Wire(url, key).modern("tools/list").status_code == 200


def test_the_public_url_is_a_host_that_may_be_called(open_services: Callable[..., Services], issuer: Issuer) -> None:
    services = open_services(public_url="https://memory.example.com")
    with serving(create_app(services)) as url:
        wire = Wire(url, issuer.token(aud="https://memory.example.com/mcp"))
        assert wire.modern("tools/list", host="memory.example.com").status_code == 200
        assert wire.modern("tools/list", host="evil.example.com").status_code == 421


@contextmanager
def serving_where_it_says(open_services: Callable[..., Services]) -> Iterator[str]:
    """Serve at the public URL of the settings, so that what clients read there leads back to us; give that URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(create_app(open_services(public_url=url)), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join(20)


class Kept:
    """Keeps what the official client wants kept, in memory."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """See `TokenStorage`."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """See `TokenStorage`."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """See `TokenStorage`."""
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """See `TokenStorage`."""


@pytest.mark.clients
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_official_client_finds_its_way_from_the_challenge_to_a_token(
    mode: str, open_services: Callable[..., Services], issuer: Issuer
) -> None:
    """Challenge, metadata, issuer, token, call; then a tool beyond the scopes, for which it asks for more by itself."""
    with serving_where_it_says(open_services) as url:
        provider = ClientCredentialsOAuthProvider(
            f"{url}/mcp", Kept(), client_id="orchestrator", client_secret="s3cret", issuer=issuer.url
        )

        async def talk() -> None:
            async with httpx2.AsyncClient(auth=provider, timeout=30) as http:
                transport = streamable_http_client(f"{url}/mcp", http_client=http)
                async with Client(transport, mode=mode, read_timeout_seconds=30) as client:
                    added = await client.call_tool("add_memory", {"text": "I like tea", "infer": False})
                    assert not added.is_error, added.content
                    removed = await client.call_tool("delete_entities", {"user_id": "orchestrator"})
                    assert not removed.is_error, removed.content

        anyio.run(talk)
    assert [form["resource"] for form in issuer.forms] == [f"{url}/mcp"] * 2
    assert issuer.forms[0]["scope"].split() == AGENT.split()
    assert set(issuer.forms[1]["scope"].split()) == {*AGENT.split(), "entity:delete"}
