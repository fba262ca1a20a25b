"""A served MCP face: the real ASGI app under uvicorn on a free port, and requests in both forms of the protocol."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette

from service.mcp.server import create_mcp
from service.settings import Settings
from service.wiring import Services

MODERN = "2026-07-28"
ACCEPT = "application/json, text/event-stream"


@contextmanager
def serve(services: Callable[[], Services], settings: Settings, *, call_seconds: float = 30.0) -> Iterator[str]:
    """Serve until the context ends and return the base URL."""
    face = create_mcp(services, settings, call_seconds=call_seconds)
    app = Starlette(routes=face.routes, lifespan=lambda app: face.lifespan())
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        _wait(server, thread)
        yield url
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    pause = threading.Event()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        pause.wait(0.02)


@dataclass
class Wire:
    """Plain HTTP requests to a served face, without any MCP client."""

    url: str
    key: str | None = None

    def post(self, body: Any, **headers: str) -> httpx.Response:
        """POST a JSON body; a header that is given replaces the usual one, `_` standing for `-`."""
        usual = {"accept": ACCEPT, "content-type": "application/json"}
        if self.key is not None:
            usual["authorization"] = f"Bearer {self.key}"
        usual |= {name.replace("_", "-"): value for name, value in headers.items()}
        # In ASCII, so that half a surrogate pair can be sent too.
        return httpx.post(f"{self.url}/mcp", content=json.dumps(body), headers=usual, timeout=30)

    def modern(self, method: str, params: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        """Send one message in the stateless form."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "wire", "version": "1.2"},
        }
        params = {**(params or {}), "_meta": meta}
        routing = {"mcp_protocol_version": MODERN, "mcp_method": method}
        if name := params.get("name") or params.get("uri"):
            routing["mcp_name"] = name
        return self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, **routing, **headers)

    def legacy(self, method: str, params: dict[str, Any] | None = None, version: str = "2025-11-25") -> httpx.Response:
        """Send one message in the form of the handshake era."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        return self.post(body, mcp_protocol_version=version)

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool in the stateless form and return the result, an error of the tool included."""
        answer = self.modern("tools/call", {"name": tool, "arguments": arguments})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result

    def done(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its structured answer."""
        result = self.call(tool, **arguments)
        assert not result["isError"], result["content"]
        structured: dict[str, Any] = result["structuredContent"]
        return structured

    def refused(self, tool: str, **arguments: Any) -> str:
        """Call a tool that must fail and return what it says."""
        result = self.call(tool, **arguments)
        assert result["isError"], result
        text: str = result["content"][0]["text"]
        return text
