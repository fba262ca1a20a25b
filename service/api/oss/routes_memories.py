"""Routes of the open-source server's dialect for memories: add and wait, list, search, get, update, delete, history."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from service import clock
from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.oss.answers import add_out, history_out, hit_out, listed_out, memory_out, raw_out
from service.api.oss.requests import edit_of, ignored_fields, names_of, new_memories, query_of
from service.api.oss.schemas import (
    OssAddIn,
    OssAddOut,
    OssHistoryOut,
    OssListOut,
    OssMemoryOut,
    OssMessageOut,
    OssSearchIn,
    OssSubjects,
    OssUpdateIn,
)
from service.api.reading import uuid_in_path
from service.api.replies import Reply
from service.api.waiting import add_and_wait
from service.filters.build import subjects_filter
from service.scope import Action

router = APIRouter(route_class=Mem0Route, tags=["open-source server"])

_LARGEST: Final = 1000
#: What Mem0's server lists of some subjects' memories, when nothing else is asked for; of all memories the most.
_USUAL: Final = 20

MemoryId = Annotated[str, Path(description="Id of a memory.")]
UserId = Annotated[str | None, Query(description="The user.")]
AgentId = Annotated[str | None, Query(description="The agent.")]
AppId = Annotated[str | None, Query(description="The app.")]
RunId = Annotated[str | None, Query(description="The run or session.")]


@router.post("/memories", summary="Add memories and wait", response_model=OssAddOut, responses=errors(409))
@acts(Action.ADD)
async def add(
    caller: CallerDep,
    services: ServicesDep,
    body: OssAddIn,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="The same key with the same body gets the first answer again; after a failure it is a new add.",
        ),
    ] = None,
) -> Response:
    """Remember messages and wait for the extraction, up to `server.event_wait` seconds."""
    new = new_memories(body)
    event = await add_and_wait(services, caller, new, idempotency_key)
    return Reply(add_out(event, ignored_fields(body), verbatim=not new.infer))


@router.get("/memories", summary="List memories", response_model=OssListOut, responses=errors())
@acts(Action.LIST)
def list_memories(
    caller: CallerDep,
    services: ServicesDep,
    user_id: UserId = None,
    agent_id: AgentId = None,
    app_id: AppId = None,
    run_id: RunId = None,
    top_k: Annotated[
        int | None, Query(ge=0, le=_LARGEST, description="How many at most: 20 by default, 1000 when no id is given.")
    ] = None,
    show_expired: Annotated[bool, Query(description="Also what is past its expiration date.")] = False,
) -> Response:
    """List memories of these ids, all of them together, the newest first; without an id all that the key reaches."""
    names = names_of(OssSubjects(user_id=user_id, agent_id=agent_id, app_id=app_id, run_id=run_id))
    size = (_USUAL if names else _LARGEST) if top_k is None else top_k
    found = services.memories.list(
        caller,
        caller.scope,
        subjects_filter(names),
        page=1,
        size=size,
        on=None if show_expired else clock.today(),
    )
    return Reply({"results": [(listed_out if names else raw_out)(memory) for memory in found.items]})


@router.post("/search", summary="Search memories", response_model=OssListOut, responses=errors())
@acts(Action.SEARCH)
def search(caller: CallerDep, services: ServicesDep, body: OssSearchIn) -> Response:
    """Find memories by meaning and by words, the best first. A user, an agent or a run must be named."""
    query = query_of(body)
    hits = services.memories.search(caller, caller.scope, query)
    return Reply({"results": [hit_out(hit, query, explain=bool(body.explain)) for hit in hits]})


@router.get("/memories/{memory_id}", summary="Get a memory", response_model=OssMemoryOut, responses=errors(404))
@acts(Action.GET)
def get(caller: CallerDep, services: ServicesDep, memory_id: MemoryId) -> Response:
    """Return one memory."""
    return Reply(memory_out(services.memories.get(caller, caller.scope, uuid_in_path(memory_id, "memory"))))


@router.put("/memories/{memory_id}", summary="Update a memory", response_model=OssMessageOut, responses=errors(404))
@acts(Action.UPDATE)
def update(caller: CallerDep, services: ServicesDep, memory_id: MemoryId, body: OssUpdateIn) -> Response:
    """Change a memory; its old text goes into its history. Metadata is added to what is there, key by key."""
    services.memories.update(caller, caller.scope, uuid_in_path(memory_id, "memory"), edit_of(body))
    return Reply({"message": "Memory updated successfully!"})


@router.delete("/memories/{memory_id}", summary="Delete a memory", response_model=OssMessageOut, responses=errors(404))
@acts(Action.DELETE)
def delete(caller: CallerDep, services: ServicesDep, memory_id: MemoryId) -> Response:
    """Delete a memory, and its text wherever it is kept."""
    services.memories.delete(caller, caller.scope, uuid_in_path(memory_id, "memory"))
    return Reply({"message": "Memory deleted successfully"})


@router.get(
    "/memories/{memory_id}/history",
    summary="History of a memory",
    response_model=list[OssHistoryOut],
    responses=errors(404),
)
@acts(Action.HISTORY)
def history(caller: CallerDep, services: ServicesDep, memory_id: MemoryId) -> Response:
    """Return what happened to a memory, the oldest step first; of a deleted one too, then without texts."""
    entries = services.memories.history(caller, caller.scope, uuid_in_path(memory_id, "memory"))
    return Reply([history_out(entry) for entry in entries])


@router.delete("/memories", summary="Delete all memories of a scope", response_model=OssMessageOut, responses=errors())
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
    names = names_of(OssSubjects(user_id=user_id, agent_id=agent_id, app_id=app_id, run_id=run_id))
    services.memories.delete_all(caller, caller.scope, names)
    return Reply({"message": "All relevant memories deleted"})
