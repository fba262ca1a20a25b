"""Routes of legal holds: place, list, read, release; placing and releasing need two people."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from service.api.admin.hold_schemas import HoldIn, HoldMembersOut, HoldOut, HoldsOut, ReleaseIn
from service.api.admin.hold_translate import hold_out, member_out, new_hold, state_of
from service.api.deps import CallerDep, GuardedRoute, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import page_out
from service.api.platform.parameters import DEFAULT_PAGE_SIZE, PageNumber, PageSize
from service.api.platform.requests import uuid_in_path
from service.api.replies import Reply
from service.scope import Action

router = APIRouter(route_class=GuardedRoute, tags=["holds"])

HoldId = Annotated[str, Path(description="Id of a hold.")]


@router.post(
    "/v1/holds/",
    summary="Place a legal hold",
    status_code=201,
    response_model=HoldOut,
    responses=errors(404, 409),
)
@acts(Action.PLACE_HOLD)
def place_hold(caller: CallerDep, services: ServicesDep, body: HoldIn) -> Response:
    """Keep memories from being deleted or changed, whatever asks for it. Needs `hold:place` and a known person."""
    hold = services.installation.holds.place(caller, caller.scope, new_hold(body))
    return Reply(hold_out(hold), status_code=201)


@router.get("/v1/holds/", summary="List legal holds", response_model=HoldsOut, responses=errors())
@acts(Action.LIST_HOLDS)
def list_holds(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    state: Annotated[str | None, Query(description="`live`, `released` or `all`, which is the default.")] = None,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List the tenant's holds, the newest first. Needs `hold:place`."""
    found = services.installation.holds.list(
        caller, caller.scope, state_of(state), page=page or 1, size=page_size or DEFAULT_PAGE_SIZE
    )
    return Reply(page_out(request, found, [hold_out(hold) for hold in found.items]))


@router.get("/v1/holds/{hold_id}/", summary="Get a legal hold", response_model=HoldOut, responses=errors(404))
@acts(Action.GET_HOLD)
def get_hold(caller: CallerDep, services: ServicesDep, hold_id: HoldId) -> Response:
    """Return one hold. Needs `hold:place`."""
    return Reply(hold_out(services.installation.holds.get(caller, caller.scope, uuid_in_path(hold_id, "hold"))))


@router.get(
    "/v1/holds/{hold_id}/members/",
    summary="List what a hold covers",
    response_model=HoldMembersOut,
    responses=errors(404),
)
@acts(Action.GET_HOLD)
def hold_members(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    hold_id: HoldId,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List the ids of the memories that a hold covers. Needs `hold:place`."""
    found = services.installation.holds.members(
        caller,
        caller.scope,
        uuid_in_path(hold_id, "hold"),
        page=page or 1,
        size=page_size or DEFAULT_PAGE_SIZE,
    )
    return Reply(page_out(request, found, [member_out(one) for one in found.items]))


@router.post(
    "/v1/holds/{hold_id}/release/", summary="Release a legal hold", response_model=HoldOut, responses=errors(404, 409)
)
@acts(Action.RELEASE_HOLD)
def release_hold(caller: CallerDep, services: ServicesDep, hold_id: HoldId, body: ReleaseIn) -> Response:
    """Release a hold, for good. Needs `hold:release`, and another person than the one who placed it."""
    found = services.installation.holds.release(caller, caller.scope, uuid_in_path(hold_id, "hold"), body.reason)
    return Reply(hold_out(found))
