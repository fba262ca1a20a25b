"""The route that tells in a few sentences what memories say together, by the language model."""

from __future__ import annotations

from typing import Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.lists import Filter
from service.api.replies import Reply
from service.filters.parse import parse_filter
from service.scope import Action

router = APIRouter(route_class=Mem0Route, tags=["summary"])

#: Threads of their own: one that waits for the language model would be missing to everybody else.
_AT_ONCE: Final = CapacityLimiter(8)


class SummaryIn(BaseModel):
    """Which memories to summarise."""

    model_config = ConfigDict(extra="ignore", strict=True)

    filters: Filter = Field(None, description="As in a search.", examples=[{"user_id": "alice"}])


class SummaryOut(BaseModel):
    """What they say."""

    summary: str
    memories: int = Field(description="How many were read for it, the newest ones.")
    matching: int = Field(description="How many match the filter.")


@router.post("/v1/summary/", summary="Summarise memories", response_model=SummaryOut, responses=errors(429))
@acts(Action.SUMMARIZE)
async def summarise(caller: CallerDep, services: ServicesDep, body: SummaryIn) -> Response:
    """Show the newest memories that match to the language model and return its summary. Without one it is 400."""
    where = parse_filter(body.filters)
    found = await run_sync(services.summaries.summarise, caller, caller.scope, where, limiter=_AT_ONCE)
    return Reply({"summary": found.text, "memories": found.memories, "matching": found.matching})
