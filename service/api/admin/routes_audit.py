"""Routes of the audit trail: list, export, what was known, and matching a value; each needs a permission of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from service.api.admin.audit_schemas import AuditEntryOut, AuditPageOut, KnownOut, MatchesOut, MatchIn
from service.api.admin.audit_translate import (
    audit_page_out,
    id_of,
    known_out,
    matches_out,
    moment_of,
    selection_of,
    text_of,
    where_of,
)
from service.api.deps import CallerDep, GuardedRoute, ServicesDep, acts
from service.api.errors import errors
from service.api.links import link
from service.api.platform.parameters import DEFAULT_PAGE_SIZE, LARGEST_PAGE, AgentId, AppId, RunId, UserId
from service.api.replies import Reply
from service.audit.details import ExportFormat
from service.audit.events import Activity, AuditEvent, Outcome
from service.audit.ocsf import ocsf
from service.audit.reading import Exported
from service.audit.selection import Selection
from service.errors import InvalidInput
from service.memories.limits import check_names
from service.records import SubjectNames
from service.scope import Action

router = APIRouter(route_class=GuardedRoute, tags=["audit"])
_LINES_AT_ONCE: Final = 200
_NDJSON: Final = "application/x-ndjson"


def _list(kind: type[Activity] | type[AuditEvent] | type[Outcome]) -> str:
    return ", ".join(f"`{one}`" for one in kind)


def _selection(
    since: Annotated[str | None, Query(alias="from", description="Not before this moment, ISO 8601.")] = None,
    until: Annotated[str | None, Query(alias="to", description="Before this moment, ISO 8601.")] = None,
    principal_id: Annotated[str | None, Query(description="Id of the key that called.")] = None,
    user_id: UserId = None,
    agent_id: AgentId = None,
    app_id: AppId = None,
    run_id: RunId = None,
    subject_id: Annotated[
        str | None, Query(description="Surrogate of a user, agent, app or run; also of an erased one.")
    ] = None,
    event: Annotated[list[str] | None, Query(description=f"Any of {_list(AuditEvent)}; may stand many times.")] = None,
    activity: Annotated[str | None, Query(description=f"One of {_list(Activity)}.")] = None,
    memory_id: Annotated[str | None, Query(description="A memory that was named, shown, made or deleted.")] = None,
    outcome: Annotated[list[str] | None, Query(description=f"Any of {_list(Outcome)}; may stand many times.")] = None,
    request_id: Annotated[str | None, Query(description="`X-Request-ID` of a call.")] = None,
    connector: Annotated[str | None, Query(description="The connector of the key.")] = None,
) -> Selection:
    return selection_of(
        since=since,
        until=until,
        principal_id=principal_id,
        names=SubjectNames(user_id=user_id, agent_id=agent_id, app_id=app_id, run_id=run_id),
        subject_id=subject_id,
        events=event,
        activity=activity,
        memory_id=memory_id,
        outcomes=outcome,
        request_id=request_id,
        connector=connector,
    )


SelectionDep = Annotated[Selection, Depends(_selection)]


@router.get("/v1/audit/", summary="Read the audit trail", response_model=AuditPageOut, responses=errors())
@acts(Action.READ_AUDIT)
def read_audit(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    selection: SelectionDep,
    order: Annotated[str, Query(description="`newest` or `oldest` first.")] = "newest",
    size: Annotated[int, Query(alias="page_size", ge=1, le=LARGEST_PAGE, description="Rows.")] = DEFAULT_PAGE_SIZE,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the rows before, with the same filters.")] = None,
    names: Annotated[bool, Query(description="Name the people who still exist; needs `memory:read` too.")] = False,
) -> Response:
    """List rows of the tenant's trail. Needs `audit:read`, and leaves a row itself."""
    if order not in ("newest", "oldest"):
        raise InvalidInput("order: must be newest or oldest")
    page = services.installation.reading.page(
        caller,
        caller.scope,
        selection,
        size=size,
        cursor=cursor,
        newest_first=order == "newest",
        names=names,
    )
    following = None
    if page.next_cursor is not None:
        following = link(request, cursor=page.next_cursor)
    return Reply(audit_page_out(page, following))


@router.get(
    "/v1/audit/export/",
    summary="Export the audit trail",
    response_model=AuditEntryOut,
    responses=errors() | {200: {"description": "One object a line.", "content": {_NDJSON: {}}}},
)
@acts(Action.EXPORT_AUDIT)
def export_audit(
    caller: CallerDep,
    services: ServicesDep,
    selection: SelectionDep,
    format: Annotated[
        str, Query(description="`jsonl`: the canonical lines, which are what is sealed. `ocsf`: OCSF 1.3.0.")
    ] = "jsonl",
) -> Response:
    """Stream all matching rows, one JSON object a line, in the order in which they are sealed. Needs `audit:read`."""
    if format not in (ExportFormat.JSONL, ExportFormat.OCSF):
        raise InvalidInput("format: must be jsonl or ocsf")
    chosen = ExportFormat(format)
    rows = services.installation.reading.export(caller, caller.scope, selection, chosen)
    return StreamingResponse(_lines(rows, chosen), media_type=_NDJSON)


@router.get("/v1/audit/known/", summary="What was known", response_model=KnownOut, responses=errors(404))
@acts(Action.READ_AUDIT)
def known(
    caller: CallerDep,
    services: ServicesDep,
    user_id: UserId = None,
    agent_id: AgentId = None,
    app_id: AppId = None,
    run_id: RunId = None,
    subject_id: Annotated[str | None, Query(description="Surrogate of a subject; also of an erased one.")] = None,
    at: Annotated[str | None, Query(description="The moment, ISO 8601; that of the request by default.")] = None,
    request_id: Annotated[str | None, Query(description="`X-Request-ID` of a call whose answer is told apart.")] = None,
    principal_id: Annotated[
        str | None, Query(description="Id of the key that sent `request_id`, where several keys did.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Memories in the answer.")] = 1000,
) -> Response:
    """Tell which memories of these subjects existed at a moment, and which an answer was made of. Ids only."""
    names = SubjectNames(user_id=user_id, agent_id=agent_id, app_id=app_id, run_id=run_id)
    check_names(names)
    subject = id_of(subject_id, "subject_id")
    request_id = text_of(request_id, "request_id")
    if not names and subject is None and request_id is None:
        raise InvalidInput("name a subject (user_id, agent_id, app_id, run_id or subject_id), a request_id, or both")
    if at is None and request_id is None:
        raise InvalidInput("give at, request_id, or both")
    if principal_id is not None and request_id is None:
        raise InvalidInput("principal_id: says whose request is meant; give request_id too")
    found = services.installation.reading.known(
        caller,
        caller.scope,
        names,
        [] if subject is None else [subject],
        at=moment_of(at, "at"),
        request_id=request_id,
        principal_id=id_of(principal_id, "principal_id"),
        limit=limit,
    )
    return Reply(known_out(found))


@router.post("/v1/audit/match/", summary="Match a value", response_model=MatchesOut, responses=errors(404, 429))
@acts(Action.MATCH_AUDIT)
def match(caller: CallerDep, services: ServicesDep, body: MatchIn) -> Response:
    """Tell in which rows exactly this value was asked or said. Needs `audit:match`; rate-limited for each key."""
    found = services.installation.matching.match(caller, caller.scope, body.value, where_of(body))
    return Reply(matches_out(found))


def _lines(rows: Iterable[Exported], chosen: ExportFormat) -> Iterator[bytes]:
    left = iter(rows)
    while some := list(islice(left, _LINES_AT_ONCE)):
        if chosen is ExportFormat.JSONL:
            yield b"".join(f"{row.line}\n".encode() for row in some)
        else:
            yield b"".join(orjson.dumps(ocsf(row.entry), option=orjson.OPT_APPEND_NEWLINE) for row in some)
