"""Whether the process lives, whether requests can be served, and the metrics: for anybody who reaches the port."""

from __future__ import annotations

from typing import Any, Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.responses import Response

from service.api.drain import Drain
from service.api.errors import ErrorOut, error_reply
from service.api.metrics import RequestMetrics
from service.api.opening import Opening
from service.api.replies import Reply
from service.errors import Unauthenticated

router = APIRouter(tags=["health"])

#: Threads of their own: requests that keep all others busy take no process out of rotation, and hide no metrics.
_AT_ONCE: Final = CapacityLimiter(2)
_SCRAPED_AT_ONCE: Final = CapacityLimiter(1)


class Alive(BaseModel):
    """The process lives."""

    status: str = Field(examples=["ok"])


class PartOut(BaseModel):
    """One store or feature."""

    status: str = Field(description="`ok`, `starting`, `off` or `failed`.", examples=["ok"])
    reason: str | None = Field(description="Why it is not `ok`.")


class Ready(BaseModel):
    """Every store and feature by name."""

    status: str = Field(
        description="`ok` once requests can be served; `starting`; `failed`; `draining` before the process ends."
    )
    parts: dict[str, PartOut]


_UNREADY: dict[int | str, dict[str, Any]] = {503: {"model": Ready, "description": "Requests cannot be served."}}


@router.get("/healthz", summary="Is the process alive?", response_model=Alive)
async def healthz() -> Response:
    """Answer as soon as the process lives, whatever the stores do."""
    return Reply({"status": "ok"})


@router.get("/readyz", summary="Can requests be served, and with what?", response_model=Ready, responses=_UNREADY)
async def readyz(request: Request) -> Response:
    """List every store and feature; 200 once requests can be served, and until the process is told to end."""
    opening: Opening = request.app.state.opening
    drain: Drain = request.app.state.drain
    parts = await run_sync(opening.parts, limiter=_AT_ONCE)
    blocking = [part for part in parts if part.blocks]
    status = "ok"
    if blocking:
        status = "starting" if all(part.state == "starting" for part in blocking) else "failed"
    if drain.begun:
        # Requests are still served: those that come before everybody has heard of it.
        status = "draining"
    body = {
        "status": status,
        "parts": {part.name: {"status": part.state, "reason": part.reason} for part in parts},
    }
    ready = status == "ok"
    return Reply(body, status_code=200 if ready else 503, headers=None if ready else {"Retry-After": "2"})


@router.get(
    "/metrics",
    summary="Metrics in the Prometheus text format",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The metrics."},
        401: {"model": ErrorOut, "description": "`metrics.token` is set, and the request does not carry it."},
    },
)
async def metrics(request: Request) -> Response:
    """Return counts, durations and how everything stands, without names and content; asks no store."""
    collected: RequestMetrics = request.app.state.metrics
    if not collected.may_be_read(request.headers.get("authorization", "")):
        detail = "send metrics.token as 'Authorization: Bearer'"
        told = {"WWW-Authenticate": 'Bearer realm="memvault metrics"'}
        return error_reply(Unauthenticated.status, Unauthenticated.code, detail, request.state.request_id, told)
    text = await run_sync(collected.text, limiter=_SCRAPED_AT_ONCE)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
