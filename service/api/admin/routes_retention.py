"""Routes of retention: rules with their versions, runs with what they did, dry ones with what they would do."""

from __future__ import annotations

from typing import Annotated, Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from service.api.admin.retention_schemas import RuleIn, RuleOut, RulesOut, RunIn, RunItemsOut, RunOut, RunsOut
from service.api.admin.retention_translate import item_out, rule_out, run_out
from service.api.deps import CallerDep, GuardedRoute, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import page_out
from service.api.platform.parameters import DEFAULT_PAGE_SIZE, PageNumber, PageSize
from service.api.platform.requests import uuid_in_path
from service.api.platform.schemas import MessageOut
from service.api.replies import Reply
from service.retention.rule_files import rule_of
from service.scope import Action, Caller
from service.wiring import Services

router = APIRouter(route_class=GuardedRoute, tags=["retention"])
#: Threads of their own: a dry run looks at all that a tenant has, which takes seconds to minutes.
_DRY_AT_ONCE: Final = CapacityLimiter(4)

RuleId = Annotated[str, Path(description="Id of a retention rule.")]
RunId = Annotated[str, Path(description="Id of a retention run.")]


@router.post(
    "/v1/retention/rules/",
    summary="Add a retention rule",
    status_code=201,
    response_model=RuleOut,
    responses=errors(409),
)
@acts(Action.SET_RETENTION_RULE)
def add_rule(caller: CallerDep, services: ServicesDep, body: RuleIn) -> Response:
    """Add a rule; it counts from the next run on. Needs `retention:manage`."""
    rule = rule_of(body.model_dump(), "body")
    return Reply(rule_out(services.installation.retention_rules.create(caller, caller.scope, rule)), status_code=201)


@router.get("/v1/retention/rules/", summary="List retention rules", response_model=RulesOut, responses=errors())
@acts(Action.LIST_RETENTION_RULES)
def list_rules(caller: CallerDep, services: ServicesDep) -> Response:
    """List the rules that count. Needs `retention:manage`."""
    rules = services.installation.retention_rules.list(caller, caller.scope)
    return Reply({"count": len(rules), "results": [rule_out(rule) for rule in rules]})


@router.get(
    "/v1/retention/rules/{rule_id}/",
    summary="Get a retention rule with its versions",
    response_model=RulesOut,
    responses=errors(404),
)
@acts(Action.LIST_RETENTION_RULES)
def get_rule(caller: CallerDep, services: ServicesDep, rule_id: RuleId) -> Response:
    """Return every version of a rule, the newest first: who changed what when. Needs `retention:manage`."""
    found = services.installation.retention_rules.versions(
        caller, caller.scope, uuid_in_path(rule_id, "retention rule")
    )
    return Reply({"count": len(found), "results": [rule_out(rule) for rule in found]})


@router.put(
    "/v1/retention/rules/{rule_id}/",
    summary="Change a retention rule",
    response_model=RuleOut,
    responses=errors(404, 409),
)
@acts(Action.SET_RETENTION_RULE)
def change_rule(caller: CallerDep, services: ServicesDep, rule_id: RuleId, body: RuleIn) -> Response:
    """Give a rule a new version, all of it. Needs `retention:manage`."""
    rule = rule_of(body.model_dump(), "body")
    changed = services.installation.retention_rules.change(
        caller, caller.scope, uuid_in_path(rule_id, "retention rule"), rule
    )
    return Reply(rule_out(changed))


@router.delete(
    "/v1/retention/rules/{rule_id}/",
    summary="Remove a retention rule",
    response_model=MessageOut,
    responses=errors(404),
)
@acts(Action.REMOVE_RETENTION_RULE)
def remove_rule(caller: CallerDep, services: ServicesDep, rule_id: RuleId) -> Response:
    """Let a rule count no more; its versions stay. Needs `retention:manage`."""
    services.installation.retention_rules.remove(caller, caller.scope, uuid_in_path(rule_id, "retention rule"))
    return Reply({"message": "Retention rule removed"})


@router.post(
    "/v1/retention/runs/",
    summary="Run retention, or list what a run would do",
    status_code=201,
    response_model=RunOut,
    responses=errors(),
)
@acts(Action.RUN_RETENTION)
async def start_run(caller: CallerDep, services: ServicesDep, body: RunIn) -> Response:
    """Begin a run, which the worker carries out, or make a dry one at once. Needs `retention:manage`."""
    if body.dry_run:
        return await run_sync(_rehearsed, caller, services, limiter=_DRY_AT_ONCE)
    return await run_sync(_begun, caller, services)


@router.get("/v1/retention/runs/", summary="List retention runs", response_model=RunsOut, responses=errors())
@acts(Action.LIST_RETENTION_RUNS)
def list_runs(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List the runs, dry ones too, the newest first. Needs `retention:manage`."""
    found = services.installation.retention_runs.list(
        caller, caller.scope, page=page or 1, size=page_size or DEFAULT_PAGE_SIZE
    )
    return Reply(page_out(request, found, [run_out(run) for run in found.items]))


@router.get(
    "/v1/retention/runs/{retention_run_id}/",
    summary="Get a retention run",
    response_model=RunOut,
    responses=errors(404),
)
@acts(Action.GET_RETENTION_RUN)
def get_run(caller: CallerDep, services: ServicesDep, retention_run_id: RunId) -> Response:
    """Return a run with its counts by rule. Needs `retention:manage`."""
    report = services.installation.retention_runs.get(
        caller, caller.scope, uuid_in_path(retention_run_id, "retention run")
    )
    return Reply(run_out(report.run, report.by_rule))


@router.get(
    "/v1/retention/runs/{retention_run_id}/items/",
    summary="List what a retention run did or would do",
    response_model=RunItemsOut,
    responses=errors(404),
)
@acts(Action.GET_RETENTION_RUN)
def run_items(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    retention_run_id: RunId,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List the memories by id, each with the rule and what it says. Needs `retention:manage`."""
    found = services.installation.retention_runs.items(
        caller,
        caller.scope,
        uuid_in_path(retention_run_id, "retention run"),
        page=page or 1,
        size=page_size or DEFAULT_PAGE_SIZE,
    )
    return Reply(page_out(request, found, [item_out(one) for one in found.items]))


def _rehearsed(caller: Caller, services: Services) -> Response:
    runs, scope = services.installation.retention_runs, caller.scope
    report = runs.go_on(scope, runs.start(caller, scope, dry=True).id)
    return Reply(run_out(report.run, report.by_rule), status_code=201)


def _begun(caller: Caller, services: Services) -> Response:
    run = services.installation.retention_runs.start(caller, caller.scope, dry=False)
    services.retention_jobs.defer(caller.scope)
    return Reply(run_out(run), status_code=201)
