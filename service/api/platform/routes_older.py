"""The routes of older clients (0.1.x, 1.0.x): ids at the top level, bare lists, adds that wait for their event."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Query, Request
from pydantic import WithJsonSchema
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from service import clock
from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import add_out, hits_out, memories_out, page_out
from service.api.platform.parameters import (
    DEFAULT_PAGE_SIZE,
    LARGEST_PAGE,
    AgentId,
    AppId,
    IdempotencyKey,
    PageNumber,
    PageSize,
    RunId,
    UserId,
)
from service.api.platform.requests import identity_of, ignored_fields, list_filter, names_of, new_memories, query_of
from service.api.platform.schemas import (
    MOST_FIELDS,
    AddOut,
    FoundMemory,
    HitOut,
    ListOut,
    OldAddIn,
    OldListIn,
    OldSearchIn,
    ResultOut,
    SearchOut,
)
from service.api.replies import Reply
from service.api.waiting import add_and_wait
from service.scope import Action, Caller
from service.strict_json import strict_object
from service.wiring import Services

#: In a query one text is a list of one.
_Texts: TypeAlias = Annotated[
    list[str] | None,
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
]

router = APIRouter(route_class=Mem0Route, tags=["older clients"])


@router.post(
    "/v1/memories/",
    summary="Add memories and wait",
    response_model=AddOut | list[ResultOut],
    responses=errors(404, 409),
)
@acts(Action.ADD)
async def add(
    caller: CallerDep, services: ServicesDep, body: OldAddIn, idempotency_key: IdempotencyKey = None
) -> Response:
    """Remember messages and wait for the extraction, up to `server.event_wait` seconds; then `PENDING`."""
    new = new_memories(body)
    if body.identity is not None:
        new = await run_in_threadpool(services.identities.adding, caller, caller.scope, new, identity_of(body))
    event = await add_and_wait(services, caller, new, idempotency_key)
    answer = add_out(event, ignored_fields(body))
    answer.setdefault("results", [])
    return Reply(answer["results"] if body.output_format == "v1.0" else answer)


@router.post(
    "/v1/memories/search/", summary="Search memories", response_model=list[HitOut] | SearchOut, responses=errors()
)
@router.post(
    "/v2/memories/search/", summary="Search memories", response_model=list[HitOut] | SearchOut, responses=errors()
)
@acts(Action.SEARCH)
def search(caller: CallerDep, services: ServicesDep, body: OldSearchIn) -> Response:
    """Find memories by meaning and by words, the best first."""
    query = query_of(body, names_of(body))
    where = services.identities.reading(caller, caller.scope, Action.SEARCH, query.where, identity_of(body))
    hits = services.memories.search(caller, caller.scope, replace(query, where=where))
    results = hits_out(hits, body.fields, explain=bool(body.explain))
    return Reply({"results": results} if body.output_format == "v1.1" else results)


@router.post("/v2/memories/", summary="List memories", response_model=list[FoundMemory] | ListOut, responses=errors())
@acts(Action.LIST)
def list_memories(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    body: OldListIn,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List memories, the newest first: a bare list, or one page when a page is asked for."""
    return _listed(request, caller, services, body, page or body.page, page_size or body.page_size)


@router.get("/v1/memories/", summary="List memories", response_model=list[FoundMemory] | ListOut, responses=errors())
@acts(Action.LIST)
def list_by_query(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    user_id: UserId = None,
    agent_id: AgentId = None,
    app_id: AppId = None,
    run_id: RunId = None,
    filters: Annotated[str | None, Query(description="Conditions, a JSON object as text.")] = None,
    metadata: Annotated[str | None, Query(description="Like `filters.metadata`, a JSON object as text.")] = None,
    categories: Annotated[_Texts, Query(description="Any of these categories; repeat it.")] = None,
    keywords: Annotated[str | None, Query(description="Texts that contain this, whatever the case.")] = None,
    start_date: Annotated[str | None, Query(description="Created on or after this day or moment.")] = None,
    end_date: Annotated[str | None, Query(description="Created on or before this day or moment.")] = None,
    show_expired: Annotated[bool, Query(description="Also what is past its expiration date.")] = False,
    latest_only: Annotated[bool, Query(description="Not what a newer memory supersedes.")] = False,
    fields: Annotated[
        _Texts, Query(max_length=MOST_FIELDS, description="Only these fields of each memory; repeat it.")
    ] = None,
    top_k: Annotated[int | None, Query(ge=1, le=LARGEST_PAGE, description="How many at most, without pages.")] = None,
    limit: Annotated[int | None, Query(ge=1, le=LARGEST_PAGE, description="Another name of `top_k`.")] = None,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List memories, the newest first: a bare list, or one page when a page is asked for."""
    body = OldListIn(
        user_id=user_id,
        agent_id=agent_id,
        app_id=app_id,
        run_id=run_id,
        filters=None if filters is None else strict_object(filters, "filters"),
        metadata=None if metadata is None else strict_object(metadata, "metadata"),
        categories=categories,
        keywords=keywords,
        start_date=start_date,
        end_date=end_date,
        show_expired=show_expired,
        latest_only=latest_only,
        fields=fields,
        top_k=top_k,
        limit=limit,
    )
    return _listed(request, caller, services, body, page, page_size)


def _listed(
    request: Request,
    caller: Caller,
    services: Services,
    body: OldListIn,
    page: int | None,
    page_size: int | None,
) -> Response:
    where = list_filter(body, names_of(body))
    paged = page is not None or page_size is not None
    found = services.memories.list(
        caller,
        caller.scope,
        services.identities.reading(caller, caller.scope, Action.LIST, where, identity_of(body)),
        page=page or 1,
        size=(page_size or DEFAULT_PAGE_SIZE) if paged else (body.top_k or body.limit or LARGEST_PAGE),
        on=None if body.show_expired else clock.today(),
        latest=bool(body.latest_only),
    )
    results: list[dict[str, Any]] = memories_out(found.items, body.fields)
    return Reply(page_out(request, found, results) if paged else results)
