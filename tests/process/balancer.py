"""A load balancer without memory: each request goes to the next of several services, whoever sends it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tests.clients.serving import serving

_HOP_BY_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"}


@contextmanager
def balanced(*urls: str) -> Iterator[tuple[str, list[str]]]:
    """Serve in front of these services; give the URL and the list of services that were used, which grows."""
    turns, used = itertools.cycle(urls), list[str]()
    client = httpx.AsyncClient(timeout=60, trust_env=False)

    async def forward(request: Request) -> StreamingResponse:
        target = next(turns)
        used.append(target)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP]
        asked = client.build_request(
            request.method,
            f"{target}{request.url.path}",
            params=request.query_params,
            headers=headers,
            content=await request.body(),
        )
        answer = await client.send(asked, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        return StreamingResponse(_body(answer), status_code=answer.status_code, headers=kept)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", forward, methods=methods)], lifespan=lifespan)
    with serving(app) as url:
        yield url, used


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()
