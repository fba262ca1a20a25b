"""Routes for webhooks, as the platform's clients call them, and for how their notifications went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from service.api.connectors.schemas import (
    NEVER_TOLD,
    DeliveriesOut,
    WebhookChangedOut,
    WebhookEditIn,
    WebhookIn,
    WebhookMadeOut,
    WebhookOut,
)
from service.api.connectors.translate import delivery_out, webhook_out
from service.api.deps import CallerDep, GuardedRoute, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import page_out
from service.api.platform.parameters import DEFAULT_PAGE_SIZE, PageNumber, PageSize
from service.api.platform.requests import uuid_in_path
from service.api.platform.schemas import MessageOut
from service.api.replies import Reply
from service.scope import Action
from service.webhooks.actions import WebhookEdit
from service.webhooks.announcing import EventType

router = APIRouter(route_class=Mem0Route, tags=["webhooks"])
#: What no client of Mem0 knows.
own = APIRouter(route_class=GuardedRoute, tags=["webhooks"])

Project = Annotated[str, Path(description="The tenant's id, as `GET /v1/ping/` gives it.")]
WebhookId = Annotated[str, Path(description="Id of a webhook.")]


@router.post(
    "/api/v1/webhooks/projects/{project_id}/",
    summary="Make a webhook",
    status_code=201,
    response_model=WebhookMadeOut,
    responses=errors(404),
)
@acts(Action.CREATE_WEBHOOK)
def create_webhook(caller: CallerDep, services: ServicesDep, project_id: Project, body: WebhookIn) -> Response:
    """Have an address told of changes. The secret by which it knows that we told is in this answer alone."""
    kinds = _told(body.event_types)
    made = services.webhooks.create(caller, caller.scope, body.name, body.url, kinds, project=project_id)
    return Reply(webhook_out(made, caller.principal.tenant_id), status_code=201)


@router.get(
    "/api/v1/webhooks/projects/{project_id}/",
    summary="List webhooks",
    response_model=list[WebhookOut],
    responses=errors(404),
)
@acts(Action.LIST_WEBHOOKS)
def list_webhooks(caller: CallerDep, services: ServicesDep, project_id: Project) -> Response:
    """List the tenant's webhooks, the oldest first, without their secrets."""
    found = services.webhooks.list(caller, caller.scope, project=project_id)
    return Reply([webhook_out(one, caller.principal.tenant_id) for one in found])


@router.put(
    "/api/v1/webhooks/{webhook_id}/",
    summary="Change a webhook",
    response_model=WebhookChangedOut,
    responses=errors(404),
)
@acts(Action.UPDATE_WEBHOOK)
def update_webhook(caller: CallerDep, services: ServicesDep, webhook_id: WebhookId, body: WebhookEditIn) -> Response:
    """Change a webhook's name, address or events; its secret stays."""
    kinds = None if body.event_types is None else _told(body.event_types)
    edit = WebhookEdit(body.name, body.url, kinds)
    changed = services.webhooks.update(caller, caller.scope, uuid_in_path(webhook_id, "webhook"), edit)
    return Reply({"message": "Webhook updated successfully", **webhook_out(changed, caller.principal.tenant_id)})


@router.delete(
    "/api/v1/webhooks/{webhook_id}/", summary="Remove a webhook", response_model=MessageOut, responses=errors(404)
)
@acts(Action.DELETE_WEBHOOK)
def delete_webhook(caller: CallerDep, services: ServicesDep, webhook_id: WebhookId) -> Response:
    """Remove a webhook with all that was to be delivered to it."""
    services.webhooks.delete(caller, caller.scope, uuid_in_path(webhook_id, "webhook"))
    return Reply({"message": "Webhook deleted successfully"})


@own.get(
    "/api/v1/webhooks/{webhook_id}/deliveries/",
    summary="Notifications of a webhook",
    response_model=DeliveriesOut,
    responses=errors(404),
)
@acts(Action.LIST_DELIVERIES)
def list_deliveries(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    webhook_id: WebhookId,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List what was to be told to a webhook and how it went, the newest first."""
    found = services.webhooks.deliveries(
        caller,
        caller.scope,
        uuid_in_path(webhook_id, "webhook"),
        page=page or 1,
        size=page_size or DEFAULT_PAGE_SIZE,
    )
    return Reply(page_out(request, found, [delivery_out(one) for one in found.items]))


def _told(asked: Sequence[str]) -> tuple[EventType, ...]:
    """Return the event types that there are, of those that were asked for."""
    return tuple(EventType(one) for one in asked if one != NEVER_TOLD)
