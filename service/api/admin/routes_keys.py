"""Routes for API keys: a key makes, lists, rotates, changes and revokes keys of its own tenant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from service.api.admin.schemas import ChangedOut, ChangeIn, KeyCreatedOut, KeyIn, KeysOut, RotatedOut, RotateIn
from service.api.admin.translate import created_out, grant_of, key_out, permissions_of, rotated_out, rotation_of
from service.api.deps import CallerDep, GuardedRoute, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.requests import uuid_in_path
from service.api.platform.schemas import MessageOut
from service.api.replies import Reply
from service.scope import Action

router = APIRouter(route_class=GuardedRoute, tags=["keys"])

KeyId = Annotated[str, Path(description="Id of a key.")]


@router.post("/v1/keys/", summary="Make a key", status_code=201, response_model=KeyCreatedOut, responses=errors())
@acts(Action.CREATE_KEY)
def create_key(caller: CallerDep, services: ServicesDep, body: KeyIn) -> Response:
    """Make a key of the same tenant, never wider than the key that asks. Its secret is shown once."""
    grant = grant_of(body)
    return Reply(created_out(services.keys.mint(caller, caller.scope, grant), grant), status_code=201)


@router.get("/v1/keys/", summary="List keys", response_model=KeysOut, responses=errors())
@acts(Action.LIST_KEYS)
def list_keys(caller: CallerDep, services: ServicesDep) -> Response:
    """List the tenant's keys, revoked ones too; a key that is bound to users sees itself only."""
    keys = services.keys.list(caller, caller.scope)
    return Reply({"count": len(keys), "results": [key_out(key) for key in keys]})


@router.delete("/v1/keys/{key_id}/", summary="Revoke a key", response_model=MessageOut, responses=errors(404))
@acts(Action.REVOKE_KEY)
def revoke_key(caller: CallerDep, services: ServicesDep, key_id: KeyId) -> Response:
    """Revoke a key for good; it stops within the seconds that a checked key is trusted (`auth.cache_seconds`)."""
    services.keys.revoke(caller, caller.scope, uuid_in_path(key_id, "key"))
    return Reply({"message": "Key revoked"})


@router.post(
    "/v1/keys/{key_id}/rotate/",
    summary="Rotate a key",
    status_code=201,
    response_model=RotatedOut,
    responses=errors(404, 409),
)
@acts(Action.ROTATE_KEY)
def rotate_key(caller: CallerDep, services: ServicesDep, key_id: KeyId, body: RotateIn) -> Response:
    """Make a key with the same grant; the old one ends when the overlap is over.

    Sent again because the answer was lost, it revokes the successor that was never used and makes another.
    """
    wanted = uuid_in_path(key_id, "key")
    rotated = services.key_changes.rotate(caller, caller.scope, wanted, rotation_of(body))
    return Reply(rotated_out(wanted, rotated), status_code=201)


@router.patch("/v1/keys/{key_id}/", summary="Change a key", response_model=ChangedOut, responses=errors(404))
@acts(Action.CHANGE_KEY)
def change_key(caller: CallerDep, services: ServicesDep, key_id: KeyId, body: ChangeIn) -> Response:
    """Give a key other permissions: fewer than it has, or such as the key that asks has itself."""
    wanted = uuid_in_path(key_id, "key")
    held = services.key_changes.change(caller, caller.scope, wanted, permissions_of(body))
    return Reply({"id": str(wanted), "permissions": sorted(held)})
