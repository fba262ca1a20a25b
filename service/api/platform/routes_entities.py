"""Routes for users, agents, apps and runs: list them, delete one with everything that belongs to it."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import entity_out, page_out
from service.api.platform.parameters import DEFAULT_PAGE_SIZE, PageNumber, PageSize
from service.api.platform.schemas import EntitiesOut, MessageOut
from service.api.replies import Reply
from service.errors import MalformedId
from service.scope import Action, SubjectKind

router = APIRouter(route_class=Mem0Route, tags=["entities"])

_KINDS: Final = {kind.value: kind for kind in SubjectKind}

Kind = Annotated[str, Path(description="`user`, `agent`, `app` or `run`.")]
# A name may hold a slash, which arrives decoded.
Name = Annotated[str, Path(description="The id of the user, agent, app or run, URL-encoded.")]


@router.get(
    "/v1/entities/", summary="List users, agents, apps and runs", response_model=EntitiesOut, responses=errors()
)
@acts(Action.LIST_ENTITIES)
def list_entities(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List the entities that the key can see, the oldest first: all of them, or one page when a page is asked for."""
    # Clients delete everybody by a list that they ask for without a page: what it left out would stay, unsaid.
    size = None if page is None and page_size is None else page_size or DEFAULT_PAGE_SIZE
    found = services.entities.list(caller, caller.scope, page=page or 1, size=size)
    tenant_id = caller.principal.tenant_id
    answer = page_out(request, found, [entity_out(entity, tenant_id) for entity in found.items])
    return Reply(answer | {"total_users": found.total})


@router.delete(
    "/v2/entities/{entity_type}/{name:path}/",
    summary="Delete a user, agent, app or run",
    response_model=MessageOut,
    responses=errors(404),
)
@router.delete(
    "/v1/entities/{entity_type}/{name:path}/",
    summary="Delete a user, agent, app or run (older path)",
    response_model=MessageOut,
    responses=errors(404),
)
@acts(Action.DELETE_ENTITY)
def delete_entity(caller: CallerDep, services: ServicesDep, entity_type: Kind, name: Name) -> Response:
    """Destroy the entity's key, then remove its memories, their history and its events. It needs `entity:delete`."""
    kind = _KINDS.get(entity_type)
    if kind is None:
        raise MalformedId("there is no such kind of entity; there are user, agent, app and run")
    services.entities.delete(caller, caller.scope, kind, name)
    return Reply({"message": "Entity deleted successfully!"})
