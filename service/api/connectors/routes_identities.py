"""Routes for the accounts of connectors: link one to a user, list them, unlink one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from service.api.connectors.schemas import LinkIn, LinkOut, LinksOut
from service.api.connectors.translate import link_out
from service.api.deps import CallerDep, GuardedRoute, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import page_out
from service.api.platform.parameters import DEFAULT_PAGE_SIZE, PageNumber, PageSize, UserId
from service.api.platform.requests import names_to_delete, uuid_in_path
from service.api.platform.schemas import MessageOut
from service.api.replies import Reply
from service.records import Identity, SubjectNames
from service.scope import Action

router = APIRouter(route_class=GuardedRoute, tags=["connectors"])


@router.post(
    "/v1/identities/", summary="Link an account", status_code=201, response_model=LinkOut, responses=errors(409)
)
@acts(Action.LINK_IDENTITY)
def link_identity(caller: CallerDep, services: ServicesDep, body: LinkIn) -> Response:
    """Let an account of a connector stand for a user; doing it again changes nothing."""
    names_to_delete(SubjectNames(user_id=body.user_id))
    identity = Identity(body.connector, body.account)
    return Reply(link_out(services.identities.link(caller, caller.scope, identity, body.user_id)), status_code=201)


@router.get("/v1/identities/", summary="List linked accounts", response_model=LinksOut, responses=errors())
@acts(Action.LIST_IDENTITIES)
def list_identities(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    user_id: UserId = None,
    connector: Annotated[str | None, Query(description="The connector.")] = None,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List linked accounts, the oldest first; of one user or connector where one is named."""
    names_to_delete(SubjectNames(user_id=user_id))
    found = services.identities.list(
        caller,
        caller.scope,
        page=page or 1,
        size=page_size or DEFAULT_PAGE_SIZE,
        user_id=user_id,
        connector=connector,
    )
    return Reply(page_out(request, found, [link_out(link) for link in found.items]))


@router.delete(
    "/v1/identities/{identity_id}/", summary="Unlink an account", response_model=MessageOut, responses=errors(404)
)
@acts(Action.UNLINK_IDENTITY)
def unlink_identity(
    caller: CallerDep, services: ServicesDep, identity_id: Annotated[str, Path(description="Id of a linked account.")]
) -> Response:
    """Let an account stand for nobody any more; what was stored through it stays its user's."""
    services.identities.unlink(caller, caller.scope, uuid_in_path(identity_id, "identity"))
    return Reply({"message": "Identity unlinked"})
