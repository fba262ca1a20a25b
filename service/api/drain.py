"""That the process is about to end: told by readiness and by every answer, while requests are still served."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import error_reply
from service.errors import Unavailable

_CUT_OFF: Final = "the service ends and the call took longer than it waits; what was to be written may still be written"


class Drain:
    """Whether the process was told to end. Once begun it goes on to the end."""

    def __init__(self) -> None:
        self._begun = False
        #: How many requests did not end in time; their threads may still be at work.
        self.cut_off = 0

    @property
    def begun(self) -> bool:
        """Whether no new request should be sent here."""
        return self._begun

    def begin(self) -> None:
        """Begin; safe within a signal handler."""
        self._begun = True


class Leaving:
    """Closes each connection after its next answer once the drain has begun, so that its client opens one elsewhere."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        started = False

        async def send_and_close(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start" and self._drain.begun:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_and_close)
        except asyncio.CancelledError:
            self._drain.cut_off += 1
            if not started:
                request_id = str(scope.get("state", {}).get("request_id", ""))
                reply = error_reply(Unavailable.status, Unavailable.code, _CUT_OFF, request_id)
                await reply(scope, receive, send_and_close)
            raise
