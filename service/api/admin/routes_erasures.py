"""Routes for erasures: ask for one, follow it, read its receipt, remove a connector."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from service.api.admin.erasure_schemas import ErasureIn, ErasureOut, ErasuresOut
from service.api.admin.erasure_translate import erasure_out, target_of
from service.api.deps import CallerDep, GuardedRoute, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import page_out
from service.api.platform.parameters import DEFAULT_PAGE_SIZE, PageNumber, PageSize
from service.api.platform.requests import uuid_in_path
from service.api.replies import Reply
from service.scope import Action

router = APIRouter(route_class=GuardedRoute, tags=["erasures"])

ErasureId = Annotated[str, Path(description="Id of an erasure.")]


@router.post(
    "/v1/erasures/",
    summary="Erase a user, agent, app or run, or all of a connector",
    status_code=202,
    response_model=ErasureOut,
    responses=errors(404, 409),
)
@acts(Action.REQUEST_ERASURE)
def request_erasure(caller: CallerDep, services: ServicesDep, body: ErasureIn) -> Response:
    """Destroy the key of a person before answering, then remove every row, rewrite the files and sign a receipt.

    Asked again while its rows leave, it answers with the erasure that is under way. 409 names a legal hold.
    """
    erasure = services.erasures.request(caller, caller.scope, target_of(body))
    return Reply(erasure_out(erasure), status_code=202)


@router.get("/v1/erasures/", summary="List erasures", response_model=ErasuresOut, responses=errors())
@acts(Action.LIST_ERASURES)
def list_erasures(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List the tenant's erasures, the newest first."""
    found = services.erasures.list(caller, caller.scope, page=page or 1, size=page_size or DEFAULT_PAGE_SIZE)
    return Reply(page_out(request, found, [erasure_out(one) for one in found.items]))


@router.get("/v1/erasures/{erasure_id}/", summary="Follow an erasure", response_model=ErasureOut, responses=errors(404))
@acts(Action.GET_ERASURE)
def get_erasure(caller: CallerDep, services: ServicesDep, erasure_id: ErasureId) -> Response:
    """Tell how far an erasure is; once it is completed, with its signed receipt."""
    found = services.erasures.get(caller, caller.scope, uuid_in_path(erasure_id, "erasure"))
    return Reply(erasure_out(found))


@router.delete(
    "/v1/connectors/{name}/",
    summary="Remove a connector",
    status_code=202,
    response_model=ErasureOut,
    responses=errors(409),
)
@acts(Action.REMOVE_CONNECTOR)
def remove_connector(
    caller: CallerDep, services: ServicesDep, name: Annotated[str, Path(description="Name of the connector.")]
) -> Response:
    """Revoke the connector's keys and erase what came through it: by `metadata.connector`, or by the key."""
    return Reply(erasure_out(services.erasures.remove_connector(caller, caller.scope, name)), status_code=202)
