"""A load balancer that sends to those that are ready, as it knows them, and tries nothing again by itself."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.clients.serving import serving
from tests.process.memvault import Memvault

_HOP_BY_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"}
_ASKED_EVERY = 0.2


class Members:
    """The services behind the balancer. Which of them are ready is asked a few times a second."""

    def __init__(self, members: Sequence[Memvault]) -> None:
        self.members = members
        self.ready: list[str] = []
        #: By address: how many requests it was sent.
        self.sent: dict[str, int] = {}
        self._turns = itertools.count()

    def next(self) -> str | None:
        """Return whose turn it is."""
        ready = list(self.ready)
        return ready[next(self._turns) % len(ready)] if ready else None

    def serves(self, url: str) -> bool:
        """Whether it is ready, and was sent a request."""
        return url in self.ready and self.sent.get(url, 0) > 0

    async def look(self, client: httpx.AsyncClient) -> None:
        """Ask all of them once."""
        ready = []
        for url in [member.url for member in self.members if member.url]:
            with suppress(httpx.HTTPError):
                if (await client.get(f"{url}/readyz", timeout=2)).status_code == 200:
                    ready.append(url)
        self.ready = ready


@contextmanager
def balancing(members: Sequence[Memvault]) -> Iterator[tuple[str, Members]]:
    """Serve in front of these services; give the URL, and what is known of them."""
    known = Members(members)
    client = httpx.AsyncClient(timeout=60, trust_env=False)

    async def forward(request: Request) -> Response:
        target = known.next()
        if target is None:
            return JSONResponse({"detail": "nobody is ready"}, status_code=503, headers={"Retry-After": "1"})
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP]
        body = await request.body()
        known.sent[target] = known.sent.get(target, 0) + 1
        try:
            answer = await client.request(
                request.method,
                f"{target}{request.url.path}",
                params=request.query_params,
                headers=headers,
                content=body,
            )
        except httpx.TransportError as error:
            detail = f"bad gateway: {type(error).__name__}"
            return JSONResponse({"detail": detail}, status_code=502, headers={"Retry-After": "1"})
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        return Response(answer.content, status_code=answer.status_code, headers=kept)

    async def watch() -> None:
        while True:
            await known.look(client)
            await asyncio.sleep(_ASKED_EVERY)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await known.look(client)
        watching = asyncio.create_task(watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await client.aclose()

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", forward, methods=methods)], lifespan=lifespan)
    with serving(app) as url:
        yield url, known
