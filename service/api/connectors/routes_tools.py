"""The two calls that a connector needs: a user's context, and storing a summary of an interaction."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from service.api.connectors.schemas import ContextIn, ContextOut, SummaryIn, SummaryOut
from service.api.connectors.translate import named
from service.api.deps import CallerDep, GuardedRoute, ServicesDep, acts
from service.api.errors import errors
from service.api.replies import Reply
from service.memories.interactions import Asked, Summary
from service.scope import Action

router = APIRouter(route_class=GuardedRoute, tags=["connectors"])


@router.post("/tools/get_user_context", summary="Context of a user", response_model=ContextOut, responses=errors())
@acts(Action.SEARCH)
def get_user_context(caller: CallerDep, services: ServicesDep, body: ContextIn) -> Response:
    """Find what is known about a user that matters for a query, without near-duplicates, within a token budget."""
    asked = Asked(body.user_id, body.query, body.connectors, body.max_tokens, named(body.identity))
    context = services.interactions.context(caller, caller.scope, asked, labelled=False)
    return Reply({"context_snippets": [snippet.text for snippet in context.snippets]})


@router.post(
    "/tools/store_interaction_summary",
    summary="Store a summary of an interaction",
    response_model=SummaryOut,
    responses=errors(404, 409),
)
@acts(Action.ADD)
def store_interaction_summary(caller: CallerDep, services: ServicesDep, body: SummaryIn) -> Response:
    """Store a summary as it is, at once; one that is there already keeps its id."""
    labels = tuple(body.labels or ())
    summary = Summary(body.summary, body.channel, body.user_id, body.connector, labels, named(body.identity))
    stored = services.interactions.store(caller, caller.scope, summary)
    return Reply({"status": "ok", "memory_id": str(stored.memory_id)})
