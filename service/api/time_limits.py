"""Time limits of every request: for the body to arrive, and for the answer to begin."""

from __future__ import annotations

import asyncio
from typing import Final

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import clock
from service.api.errors import error_reply
from service.errors import TooSlow, Unavailable

#: What is under way after its request was given up; asyncio itself keeps weak references only.
_LEFT: Final[set[asyncio.Task[None]]] = set()


class TimeLimits:
    """Answers 408 to a body that does not arrive, and 503 when there is no answer in time.

    An action that is under way by then goes on to its end, in its thread: it must not be cut off in the middle. One
    that still waits for a thread is never begun: nobody waits for it, and whoever sent it sends it again. Once
    an answer has begun there is no limit, so that an export may take as long as it takes.
    """

    def __init__(self, app: ASGIApp, *, body_seconds: float, seconds: float) -> None:
        self._app = app
        self._body_seconds = body_seconds
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(receive, send)
        given_up = anyio.CancelScope()

        async def served() -> None:
            with given_up:
                await self._app(scope, request.receive, request.send)

        task = asyncio.create_task(served())
        began = clock.monotonic()
        try:
            for seconds in sorted({min(self._body_seconds, self._seconds), self._seconds}):
                left = max(0.0, began + seconds - clock.monotonic())
                done, _ = await asyncio.wait({task}, timeout=left)
                if done or request.started:
                    break
                if request.waits_for_body:
                    break
            if task.done() or request.started:
                await task
                return
        except asyncio.CancelledError:
            task.cancel()
            raise
        request.mute()
        if request.waits_for_body:
            task.cancel()
            error: TooSlow | Unavailable = TooSlow(
                f"body: did not arrive within {self._body_seconds:g} s (server.body_seconds); send it at once"
            )
        else:
            # What waits for a thread is never begun; a thread that is at it goes on to its end.
            given_up.cancel()
            error = Unavailable(
                f"no answer within {self._seconds:g} s; what was to be written may still be written, so look before "
                "you try again"
            )
        _LEFT.add(task)
        task.add_done_callback(_forget)
        reply = error_reply(error.status, error.code, error.detail, scope["state"]["request_id"], error.headers)
        await reply(scope, receive, send)


class _Request:
    """The two ways between the server and the app, watched."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._whole = False
        self._reading = False
        self._muted = False
        self.started = False

    @property
    def waits_for_body(self) -> bool:
        """Whether the app waits for a part of the body that has not come."""
        return self._reading and not self._whole

    def mute(self) -> None:
        """Let nothing through any more."""
        self._muted = True

    async def receive(self) -> Message:
        """Receive as the app does."""
        self._reading = True
        message = await self._receive()
        self._reading = False
        self._whole = self._whole or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send as the app does."""
        if not self._muted:
            self.started = True
            await self._send(message)


def _forget(task: asyncio.Task[None]) -> None:
    """Let go of what went on after its request; what it ends with is nobody's any more."""
    _LEFT.discard(task)
    if not task.cancelled():
        task.exception()
