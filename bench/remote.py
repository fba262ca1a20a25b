"""Memvault as its callers reach it: over REST and over MCP, one kept connection for each calling thread."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from bench.stock import ADDER, USER
from bench.texts import memory_text, query_text
from bench.timing import Refused

HITS: Final = 10
_PROTOCOL: Final = "2026-07-28"


class Rest:
    """Memvault's REST interface in the platform's dialect. Calls go to the tenants in turn, by their keys."""

    name: Final = "REST"

    def __init__(self, url: str, api_keys: Sequence[str]) -> None:
        self._wire = Wire(url)
        self._headers = [{"Authorization": f"Token {key}"} for key in api_keys]

    def search(self, number: int) -> None:
        """See `Contender`."""
        body = {"query": query_text(number), "filters": {"user_id": USER}, "top_k": HITS, "threshold": 0.0}
        expect(len(self._post("/v3/memories/search/", number, body)["results"]))

    def add(self, number: int) -> None:
        """See `Contender`."""
        messages = [{"role": "user", "content": memory_text(number)}]
        self._post("/v3/memories/add/", number, {"messages": messages, "user_id": ADDER, "infer": False})

    def close(self) -> None:
        """Let go of the service."""
        self._wire.close()

    def _post(self, path: str, number: int, body: dict[str, Any]) -> Any:
        return self._wire.post(path, body, self._headers[number % len(self._headers)])


class Mcp:
    """Memvault's MCP endpoint, stateless: one message, one answer, no session."""

    name: Final = "MCP"

    def __init__(self, url: str, api_keys: Sequence[str]) -> None:
        self._wire = Wire(url)
        self._headers = [
            {
                "Authorization": f"Bearer {key}",
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": _PROTOCOL,
                "Mcp-Method": "tools/call",
            }
            for key in api_keys
        ]

    def search(self, number: int) -> None:
        """See `Contender`."""
        query = {"query": query_text(number), "filters": {"user_id": USER}, "limit": HITS}
        expect(len(self._call("search_memories", number, query)["results"]))

    def add(self, number: int) -> None:
        """See `Contender`."""
        self._call("add_memory", number, {"text": memory_text(number), "user_id": ADDER, "infer": False})

    def close(self) -> None:
        """Let go of the service."""
        self._wire.close()

    def _call(self, tool: str, number: int, arguments: dict[str, Any]) -> Any:
        meta = {
            "io.modelcontextprotocol/protocolVersion": _PROTOCOL,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        headers = self._headers[number % len(self._headers)] | {"Mcp-Name": tool}
        answer = self._wire.post("/mcp", message, headers)
        if "error" in answer or answer["result"].get("isError"):
            raise Refused(f"error of {tool}")
        return answer["result"]["structuredContent"]


class Wire:
    """Posts JSON over connections that are kept, one for each thread: the client's own work must not be what is timed.

    Raises:
        Refused: for a status of 400 or more.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = address.hostname or "", address.port
        self._below = address.path.rstrip("/")
        self._own = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections of all threads."""
        while self._open:
            self._open.pop().close()

    def post(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Any:
        """Send a body and return the answer's."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._kind(self._host, self._port, timeout=60)
            self._open.append(connection)
        try:
            connection.request(
                "POST", self._below + path, orjson.dumps(body), {"Content-Type": "application/json", **headers}
            )
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            # A connection that broke off in the middle cannot be used again.
            connection.close()
            raise
        if response.status >= 400:
            raise Refused(f"status {response.status}")
        return orjson.loads(answer)


def expect(found: int) -> None:
    """Raise unless as many memories were found as were asked for: a fast answer that lacks something is none."""
    if found != HITS:
        raise LookupError(f"found {found} memories, not {HITS}")
