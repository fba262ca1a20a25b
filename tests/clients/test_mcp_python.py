"""The official MCP client for Python against the whole served app, in both eras of the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from service.main import create_app
from service.scope import TenantId
from service.wiring import Services
from tests.clients.serving import serving
from tests.conftest import principal_of

pytestmark = [pytest.mark.clients, pytest.mark.anyio]

Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio, and so do these clients."""
    return "asyncio"


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    """The base URL of the served app."""
    with serving(create_app(services)) as base:
        yield base


@pytest.fixture
def connect(services: Services, tenant: TenantId, url: str) -> Connect:
    """Connect a client with a new key."""

    @asynccontextmanager
    async def client(*, mode: str = "auto", key: str | None = None, **grant: Any) -> AsyncIterator[Client]:
        secret = key or principal_of(services, tenant, **grant)[1]
        headers = {"Authorization": f"Bearer {secret}"}
        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
            transport = streamable_http_client(f"{url}/mcp", http_client=http)
            async with Client(transport, mode=mode, read_timeout_seconds=30) as connected:
                yield connected

    return client


async def answer(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed. The client checks the answer against the tool's output schema."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.content
    structured: dict[str, Any] = result.structured_content
    return structured


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_a_session_with_every_tool(connect: Connect, mode: str, version: str) -> None:
    async with connect(mode=mode) as client:
        assert client.protocol_version == version
        assert client.server_info is not None
        assert client.server_info.name == "memvault"
        assert "get_user_context" in (client.instructions or "")
        tools = {tool.name for tool in (await client.list_tools()).tools}
        used = set()

        async def use(tool: str, **arguments: Any) -> dict[str, Any]:
            used.add(tool)
            return await answer(client, tool, **arguments)

        added = await use("add_memory", text="Alice drinks green tea", user_id="alice", infer=False)
        memory_id = added["results"][0]["id"]
        assert (await use("get_event_status", event_id=added["event_id"]))["status"] == "SUCCEEDED"
        found = await use("search_memories", query="what does she drink?", filters={"user_id": "alice"})
        assert [one["id"] for one in found["results"]] == [memory_id]
        assert (await use("get_memory", memory_id=memory_id))["memory"] == "Alice drinks green tea"
        await use("update_memory", memory_id=memory_id, text="Alice drinks black tea")
        assert "black tea" in (await use("get_user_context", query="tea", user_id="alice"))["context"]
        await use("store_interaction_summary", summary="Ordered tea", channel="chat", connector="web", user_id="alice")
        assert (await use("get_memories"))["count"] == 2
        assert (await use("list_entities"))["results"][0]["name"] == "alice"
        assert (await use("list_events"))["count"] == 2
        await use("delete_memory", memory_id=memory_id)
        assert (await use("delete_all_memories", user_id="alice"))["deleted"] == 1
        await use("delete_entities", user_id="alice")
        assert used == tools

        with pytest.raises(MCPError) as unknown:
            await client.call_tool("no_such_tool", {})
        assert unknown.value.code == -32602


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_resources_and_prompts(connect: Connect, mode: str) -> None:
    async with connect(mode=mode, users=frozenset({"alice"})) as client:
        await answer(client, "add_memory", text="Alice rows", infer=False)
        (resource,) = (await client.list_resources()).resources
        assert "Alice rows" in (await client.read_resource(resource.uri)).contents[0].text
        (prompt,) = (await client.list_prompts()).prompts
        assert (await client.get_prompt(prompt.name)).messages


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_wrong_key_is_told_to_the_user(connect: Connect, mode: str) -> None:
    refusal = pytest.RaisesExc(MCPError, match="unauthenticated: the API key is missing or not valid")
    with pytest.RaisesGroup(refusal, flatten_subgroups=True):
        async with connect(mode=mode, key="mv_wrong"):
            pass
