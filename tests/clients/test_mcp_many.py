"""Two hundred callers at once against the whole served app: official clients of both eras and plain HTTP."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from service.scope import TenantId
from service.wiring import Services
from tests.conftest import principal_of

pytestmark = [pytest.mark.clients, pytest.mark.anyio]

CALLERS = 200
#: Every so many of them is an official client, of either era in turn.
OFFICIAL = 4
VERSION = "2026-07-28"


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio, and so do these clients."""
    return "asyncio"


async def official(url: str, key: str, mode: str, calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Make calls with the official client."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=120) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode, read_timeout_seconds=120) as client,
    ):
        results = [await client.call_tool(tool, arguments) for tool, arguments in calls]
    assert not any(one.is_error for one in results), results
    return [one.structured_content for one in results]


async def plain(url: str, key: str, calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Make calls with nothing but HTTP."""
    answers = []
    meta = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
    async with httpx.AsyncClient(timeout=120) as client:
        for tool, arguments in calls:
            params = {"name": tool, "arguments": arguments, "_meta": meta}
            answer = await client.post(
                f"{url}/mcp",
                json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
                headers={
                    "Authorization": f"Bearer {key}",
                    "Accept": "application/json, text/event-stream",
                    "MCP-Protocol-Version": VERSION,
                    "Mcp-Method": "tools/call",
                    "Mcp-Name": tool,
                },
            )
            assert answer.status_code == 200, answer.text
            result = answer.json()["result"]
            assert not result["isError"], result
            answers.append(result["structuredContent"])
    return answers


async def test_two_hundred_callers_at_once(services: Services, tenant: TenantId, url: str) -> None:
    other = services.installation.tenants.create("globex").id
    keys = [
        principal_of(services, (tenant, other)[number % 2], role="agent", users=frozenset({f"u{number // 2}"}))[1]
        for number in range(CALLERS)
    ]
    found: dict[int, list[str]] = {}
    start = anyio.Event()

    async def work(number: int) -> None:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("add_memory", {"text": f"Locker L{number}", "infer": False}),
            ("search_memories", {"query": "locker"}),
            ("get_user_context", {"query": "Which locker?"}),
        ]
        await start.wait()
        if number % OFFICIAL:
            answers = await plain(url, keys[number], calls)
        else:
            mode = "auto" if number % (2 * OFFICIAL) else "legacy"
            answers = await official(url, keys[number], mode, calls)
        assert f"Locker L{number}" in answers[2]["context"]
        found[number] = [hit["memory"] for hit in answers[1]["results"]]

    with anyio.fail_after(240):
        async with anyio.create_task_group() as tasks:
            for number in range(CALLERS):
                tasks.start_soon(work, number)
            start.set()
    assert found == {number: [f"Locker L{number}"] for number in range(CALLERS)}
