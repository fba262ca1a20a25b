"""Calls on the app in this process, byte by byte: paths, headers and bodies as no client library would send them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Call:
    """One request. `path` and `query` are raw: what they hold that is not ASCII or is special is encoded already."""

    method: str
    path: str
    query: str = ""
    headers: Headers = ()
    body: bytes = b""

    def with_headers(self, *more: tuple[str, str]) -> Call:
        """Return the call with further headers."""
        return Call(self.method, self.path, self.query, (*self.headers, *more), self.body)


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


class Wire:
    """The app, up and running in a thread of its own."""

    def __init__(self, app: FastAPI, portal: BlockingPortal) -> None:
        self._app = app
        self._portal = portal

    def send(self, calls: Sequence[Call]) -> list[Answer]:
        """Send calls one after the other."""
        return self._portal.call(self._send_all, calls)

    async def _send_all(self, calls: Sequence[Call]) -> list[Answer]:
        return [await self._send(call) for call in calls]

    async def _send(self, call: Call) -> Answer:
        answer = Answer()
        sent, done = False, anyio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:
                # The client stays until it has its answer.
                await done.wait()
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": call.body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message["headers"]]
            elif message["type"] == "http.response.body":
                answer.body += message.get("body", b"")
                if not message.get("more_body", False):
                    done.set()

        raw = call.path.encode("latin-1", "replace")
        headers = [(name.lower().encode("latin-1"), value.encode("utf-8", "replace")) for name, value in call.headers]
        if not any(name == b"host" for name, _ in headers):
            headers.append((b"host", b"127.0.0.1:8080"))
        headers.append((b"content-length", str(len(call.body)).encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": call.method,
            "scheme": "http",
            # As the server does: decoded once, and read as UTF-8 where it is.
            "path": unquote_to_bytes(raw).decode("utf-8", "replace"),
            "raw_path": raw,
            "root_path": "",
            "query_string": call.query.encode("latin-1", "replace"),
            "headers": headers,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8080),
            "state": {},
        }
        await self._app(scope, receive, send)
        return answer


@contextmanager
def running(app: FastAPI) -> Iterator[Wire]:
    """Run the app, its lifespan included, until the context ends."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        yield Wire(app, portal)
