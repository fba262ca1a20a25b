"""Routes that tell how adds went."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import event_out, page_out
from service.api.platform.parameters import DEFAULT_PAGE_SIZE, PageNumber, PageSize
from service.api.platform.requests import events_wanted
from service.api.platform.schemas import EventOut, EventsOut
from service.api.reading import uuid_in_path
from service.api.replies import Reply
from service.records import EventStatus
from service.scope import Action

router = APIRouter(route_class=Mem0Route, tags=["events"])


@router.get("/v1/events/", summary="List events", response_model=EventsOut, responses=errors())
@acts(Action.LIST_EVENTS)
def list_events(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    page: PageNumber = None,
    page_size: PageSize = None,
    status: Annotated[list[EventStatus] | None, Query(description="Only in one of these states.")] = None,
    event_type: Annotated[list[str] | None, Query(description="Only of one of these types, `ADD` say.")] = None,
    start_date: Annotated[str | None, Query(description="Begun on or after this day or moment.")] = None,
    end_date: Annotated[str | None, Query(description="Begun on or before this day or moment.")] = None,
) -> Response:
    """List the events that the key can see, the newest first."""
    which = events_wanted(status, event_type, start_date, end_date)
    found = services.events.list(caller, caller.scope, page=page or 1, size=page_size or DEFAULT_PAGE_SIZE, which=which)
    return Reply(page_out(request, found, [event_out(event) for event in found.items]))


@router.get("/v1/event/{event_id}/", summary="Get an event", response_model=EventOut, responses=errors(404))
@acts(Action.GET_EVENT)
def get_event(
    caller: CallerDep, services: ServicesDep, event_id: Annotated[str, Path(description="Id of an event.")]
) -> Response:
    """Return how an add went, with the texts as they are now."""
    return Reply(event_out(services.events.get(caller, caller.scope, uuid_in_path(event_id, "event"))))
