"""Chooses how a message is answered: as plain JSON, or as a stream that tells of progress and ends with its client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from mcp.server.lowlevel import Server
from mcp.server.streamable_http import check_accept_headers
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from service.mcp.bodies import is_stateless, peeked

#: Every older message that asks for progress has this name in it. One that only mentions it gets a stream, which its
#: client reads as well.
_ASKS_FOR_PROGRESS: Final = b'"progressToken"'


class Streams:
    """Both forms of an answer over one server, without sessions: any replica can answer any message.

    A client of 2025 that asks for no progress, and whoever takes no event stream, gets one JSON document. There is
    nothing for such a client to cancel: its cancellation arrives as another request, maybe at another replica, and the
    numbers of messages are unique within a client only.
    """

    def __init__(self, server: Server[dict[str, Any]], *, body_limit: int) -> None:
        self._limit = body_limit
        self._plain = _manager(server, body_limit, json_response=True)
        self._streamed = _manager(server, body_limit, json_response=False)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Answer until the context ends."""
        async with self._plain.run(), self._streamed.run():
            yield

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        # The blanks around a header's value are no part of it, but the HTTP parser leaves those behind it there.
        scope = {**scope, "headers": [(name, value.strip(b" \t")) for name, value in scope["headers"]]}
        request = Request(scope)
        chosen = self._plain
        # What breaks off while it is being sent has nobody to be answered.
        with suppress(ClientDisconnect):
            if all(check_accept_headers(request)):
                if is_stateless(request):
                    chosen = self._streamed
                else:
                    body, receive = await peeked(receive, self._limit)
                    if _ASKS_FOR_PROGRESS in body:
                        chosen = self._streamed
            await chosen.handle_request(scope, receive, send)


def _manager(server: Server[dict[str, Any]], limit: int, *, json_response: bool) -> StreamableHTTPSessionManager:
    return StreamableHTTPSessionManager(
        server, stateless=True, json_response=json_response, max_request_body_size=limit
    )
