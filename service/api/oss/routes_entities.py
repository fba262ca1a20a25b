"""Routes of the open-source server's dialect for users, agents, apps and runs."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path
from starlette.responses import Response

from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.oss.answers import entities_out
from service.api.oss.schemas import OssEntityOut, OssMessageOut
from service.api.replies import Reply
from service.errors import MalformedId
from service.scope import Action, SubjectKind

router = APIRouter(route_class=Mem0Route, tags=["open-source server"])

_KINDS: Final = {kind.value: kind for kind in SubjectKind}
#: As many as Mem0's server looks at.
_MOST: Final = 10_000

Kind = Annotated[str, Path(description="`user`, `agent`, `app` or `run`.")]
# A name may hold a slash, which arrives decoded.
Name = Annotated[str, Path(description="The id of the user, agent, app or run, URL-encoded.")]


@router.get("/entities", summary="List entities", response_model=list[OssEntityOut], responses=errors())
@acts(Action.LIST_ENTITIES)
def list_entities(caller: CallerDep, services: ServicesDep) -> Response:
    """List the users, agents, apps and runs that have memories, by kind and name."""
    found = services.entities.list(caller, caller.scope, page=1, size=_MOST)
    return Reply(entities_out(found.items))


@router.delete(
    "/entities/{entity_type}/{name:path}",
    summary="Delete an entity",
    response_model=OssMessageOut,
    responses=errors(404),
)
@acts(Action.DELETE_ENTITY)
def delete_entity(caller: CallerDep, services: ServicesDep, entity_type: Kind, name: Name) -> Response:
    """Destroy the entity's key, then remove its memories, their history and its events. It needs `entity:delete`."""
    kind = _KINDS.get(entity_type)
    if kind is None:
        raise MalformedId("there is no such kind of entity; there are user, agent, app and run")
    services.entities.delete(caller, caller.scope, kind, name)
    return Reply({"message": "Entity deleted"})
