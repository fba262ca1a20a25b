"""Puts the MCP face together: one ASGI app for `/mcp`, its routes, and the lifespan that it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.mcp.door import Door, allowed
from service.mcp.metadata import ProtectedResource
from service.mcp.protocol import create_server
from service.mcp.streams import Streams
from service.mcp.threads import Threads
from service.settings import Settings
from service.wiring import Services

PATH: Final = "/mcp"
#: Longer than any call should take, shorter than the time after which MCP clients give up by themselves (60 s).
CALL_SECONDS: Final = 30.0
#: Addresses to listen on that are no name of this machine.
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::", ""})


class MountableMcp:
    """The MCP face, to be joined to an HTTP app: add `routes` to it and enter `lifespan()` in its own lifespan.

    Routes and not a mount: a mount at `/mcp` redirects to `/mcp/`, and clients do not follow with their credential.
    """

    def __init__(self, services: Callable[[], Services], settings: Settings, *, call_seconds: float) -> None:
        self._settings = settings
        self._threads = Threads(seconds=call_seconds)
        self._server = create_server(self._threads)
        self._streams: Streams | None = None
        resource = ProtectedResource(settings, PATH)
        self.app = Door(
            self._handle,
            services,
            self._threads,
            allowed(_hosts(settings)),
            resource,
            body_limit=settings.server.body_limit,
        )
        self.routes = [Route(path, self.app, include_in_schema=False) for path in (PATH, f"{PATH}/")]
        self.routes += resource.routes

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Serve until the context ends. Can be entered again afterwards."""
        streams = Streams(self._server, body_limit=self._settings.server.body_limit)
        async with self._threads.open(), streams.run():
            self._streams = streams
            try:
                yield
            finally:
                self._streams = None

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._streams is None:
            raise RuntimeError("the lifespan of the MCP face was not entered")
        await self._streams.answer(scope, receive, send)


def create_mcp(
    services: Callable[[], Services], settings: Settings, *, call_seconds: float = CALL_SECONDS
) -> MountableMcp:
    """Return the MCP face. `services` is asked at each request, and raises Unavailable while none can be served."""
    return MountableMcp(services, settings, call_seconds=call_seconds)


def _hosts(settings: Settings) -> list[str]:
    own = settings.server.host
    public = urlsplit(settings.server.public_url or "").hostname
    return [
        *([] if own in _EVERYWHERE else [own]),
        *([] if public is None else [f"[{public}]" if ":" in public else public]),
        *settings.server.allowed_hosts,
    ]
