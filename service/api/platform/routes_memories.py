"""The routes of today's clients for memories: add, search, list, get, update, delete, history."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service import clock
from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import add_out, history_out, hits_out, memories_out, memory_out, page_out
from service.api.platform.parameters import (
    DEFAULT_PAGE_SIZE,
    AgentId,
    AppId,
    IdempotencyKey,
    MemoryId,
    PageNumber,
    PageSize,
    RunId,
    UserId,
)
from service.api.platform.requests import (
    edit_of,
    identity_of,
    ignored_fields,
    list_filter,
    names_to_delete,
    new_memories,
    query_of,
)
from service.api.platform.schemas import (
    AddIn,
    AddOut,
    DeletedOut,
    HistoryOut,
    ListIn,
    ListOut,
    MemoryOut,
    MessageOut,
    SearchIn,
    SearchOut,
    UpdateIn,
)
from service.api.reading import uuid_in_path
from service.api.replies import Reply
from service.records import SubjectNames
from service.scope import Action

router = APIRouter(route_class=Mem0Route, tags=["memories"])


@router.post("/v3/memories/add/", summary="Add memories", response_model=AddOut, responses=errors(404, 409))
@acts(Action.ADD)
def add(caller: CallerDep, services: ServicesDep, body: AddIn, idempotency_key: IdempotencyKey = None) -> Response:
    """Remember messages: extracted by the LLM (`PENDING`, ask for the event) or, with `infer: false`, as they stand."""
    new = services.identities.adding(caller, caller.scope, new_memories(body), identity_of(body))
    event = services.adds.add(caller, caller.scope, new, idempotency_key=idempotency_key)
    return Reply(add_out(event, ignored_fields(body)))


@router.post("/v3/memories/search/", summary="Search memories", response_model=SearchOut, responses=errors())
@acts(Action.SEARCH)
def search(caller: CallerDep, services: ServicesDep, body: SearchIn) -> Response:
    """Find memories by meaning and by words, the best first."""
    query = query_of(body)
    where = services.identities.reading(caller, caller.scope, Action.SEARCH, query.where, identity_of(body))
    hits = services.memories.search(caller, caller.scope, replace(query, where=where))
    return Reply({"results": hits_out(hits, body.fields, explain=bool(body.explain))})


@router.post("/v3/memories/", summary="List memories", response_model=ListOut, responses=errors())
@acts(Action.LIST)
def list_memories(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    body: ListIn,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List memories page by page, the newest first."""
    found = services.memories.list(
        caller,
        caller.scope,
        services.identities.reading(caller, caller.scope, Action.LIST, list_filter(body), identity_of(body)),
        page=page or body.page or 1,
        size=page_size or body.page_size or body.top_k or body.limit or DEFAULT_PAGE_SIZE,
        on=None if body.show_expired else clock.today(),
        latest=bool(body.latest_only),
    )
    return Reply(page_out(request, found, memories_out(found.items, body.fields)))


@router.get("/v1/memories/{memory_id}/", summary="Get a memory", response_model=MemoryOut, responses=errors(404))
@acts(Action.GET)
def get(caller: CallerDep, services: ServicesDep, memory_id: MemoryId) -> Response:
    """Return one memory."""
    return Reply(memory_out(services.memories.get(caller, caller.scope, uuid_in_path(memory_id, "memory"))))


@router.put("/v1/memories/{memory_id}/", summary="Update a memory", response_model=MemoryOut, responses=errors(404))
@acts(Action.UPDATE)
def update(caller: CallerDep, services: ServicesDep, memory_id: MemoryId, body: UpdateIn) -> Response:
    """Change a memory; its old text goes into its history."""
    wanted = uuid_in_path(memory_id, "memory")
    return Reply(memory_out(services.memories.update(caller, caller.scope, wanted, edit_of(body))))


@router.delete("/v1/memories/{memory_id}/", summary="Delete a memory", response_model=MessageOut, responses=errors(404))
@acts(Action.DELETE)
def delete(
    caller: CallerDep,
    services: ServicesDep,
    memory_id: MemoryId,
    delete_linked: Annotated[
        bool, Query(description="Also the older memories that it supersedes, and those that they do.")
    ] = False,
) -> Response:
    """Delete a memory, and its text wherever it is kept."""
    services.memories.delete(caller, caller.scope, uuid_in_path(memory_id, "memory"), linked=delete_linked)
    return Reply({"message": "Memory deleted successfully!"})


@router.get(
    "/v1/memories/{memory_id}/history/",
    summary="History of a memory",
    response_model=list[HistoryOut],
    responses=errors(404),
)
@acts(Action.HISTORY)
def history(caller: CallerDep, services: ServicesDep, memory_id: MemoryId) -> Response:
    """Return what happened to a memory, the oldest step first; of a deleted one too, then without texts."""
    entries = services.memories.history(caller, caller.scope, uuid_in_path(memory_id, "memory"))
    return Reply([history_out(entry) for entry in entries])


@router.delete("/v1/memories/", summary="Delete all memories of a scope", response_model=DeletedOut, responses=errors())
@acts(Action.DELETE_ALL)
def delete_all(
    caller: CallerDep,
    services: ServicesDep,
    user_id: UserId = None,
    agent_id: AgentId = None,
    app_id: AppId = None,
    run_id: RunId = None,
) -> Response:
    """Delete every memory of these ids, all of them together. Without an id, or with a filter, nothing is deleted."""
    names = names_to_delete(SubjectNames(user_id=user_id, agent_id=agent_id, app_id=app_id, run_id=run_id))
    count = services.memories.delete_all(caller, caller.scope, names)
    return Reply({"message": "Memories deleted successfully!", "count": count})
