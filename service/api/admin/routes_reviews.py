"""Routes for reviewers: what waits in quarantine, and the decision on it. They need `memory:review`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from service.api.admin.review_schemas import (
    DecidedAllOut,
    DecidedOut,
    FoundReviewsOut,
    ReviewIdsIn,
    ReviewOut,
    ReviewSearchIn,
    ReviewsOut,
)
from service.api.deps import CallerDep, GuardedRoute, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.answers import page_out, review_out
from service.api.platform.parameters import (
    DEFAULT_PAGE_SIZE,
    AgentId,
    AppId,
    PageNumber,
    PageSize,
    RunId,
    UserId,
)
from service.api.reading import uuid_in_path
from service.api.replies import Reply
from service.errors import NotFound
from service.filters.build import subjects_filter
from service.filters.parse import parse_filter
from service.memories.limits import check_names
from service.memories.reviews import Decided, Decision
from service.records import SubjectNames
from service.scope import Action

router = APIRouter(route_class=GuardedRoute, tags=["reviews"])

ReviewId = Annotated[str, Path(description="Id of a memory in quarantine.")]


@router.get("/v1/reviews/", summary="List what waits for a reviewer", response_model=ReviewsOut, responses=errors())
@acts(Action.LIST_REVIEWS)
def list_reviews(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    user_id: UserId = None,
    agent_id: AgentId = None,
    app_id: AppId = None,
    run_id: RunId = None,
    page: PageNumber = None,
    page_size: PageSize = None,
) -> Response:
    """List the memories in quarantine, the longest waiting first."""
    names = SubjectNames(user_id=user_id, agent_id=agent_id, app_id=app_id, run_id=run_id)
    check_names(names)
    found = services.reviews.list(
        caller, caller.scope, subjects_filter(names), page=page or 1, size=page_size or DEFAULT_PAGE_SIZE
    )
    return Reply(page_out(request, found, [review_out(one) for one in found.items]))


@router.post(
    "/v1/reviews/search/",
    summary="Search what waits for a reviewer",
    response_model=FoundReviewsOut,
    responses=errors(),
)
@acts(Action.SEARCH_REVIEWS)
def search_reviews(caller: CallerDep, services: ServicesDep, body: ReviewSearchIn) -> Response:
    """Find memories in quarantine by meaning, the best first."""
    where = parse_filter(body.filters)
    found = services.reviews.search(caller, caller.scope, body.query, where, limit=body.top_k)
    return Reply({"results": [review_out(one) for one in found]})


@router.get(
    "/v1/reviews/{review_id}/", summary="Get what waits for a reviewer", response_model=ReviewOut, responses=errors(404)
)
@acts(Action.GET_REVIEW)
def get_review(caller: CallerDep, services: ServicesDep, review_id: ReviewId) -> Response:
    """Return one memory in quarantine."""
    return Reply(
        review_out(services.reviews.get(caller, caller.scope, uuid_in_path(review_id, "memory in quarantine")))
    )


@router.post("/v1/reviews/approve/", summary="Approve many", response_model=DecidedAllOut, responses=errors())
@acts(Action.APPROVE_REVIEWS)
def approve_reviews(caller: CallerDep, services: ServicesDep, body: ReviewIdsIn) -> Response:
    """Make memories in quarantine memories like any other; the answer says what became of each."""
    return _all("approved", body.ids, services.reviews.approve(caller, caller.scope, _ids(body.ids)))


@router.post("/v1/reviews/reject/", summary="Reject many", response_model=DecidedAllOut, responses=errors(409))
@acts(Action.REJECT_REVIEWS)
def reject_reviews(caller: CallerDep, services: ServicesDep, body: ReviewIdsIn) -> Response:
    """Remove memories in quarantine for good; the answer says what became of each."""
    return _all("rejected", body.ids, services.reviews.reject(caller, caller.scope, _ids(body.ids)))


@router.post(
    "/v1/reviews/{review_id}/approve/", summary="Approve one", response_model=DecidedOut, responses=errors(404)
)
@acts(Action.APPROVE_REVIEWS)
def approve_review(caller: CallerDep, services: ServicesDep, review_id: ReviewId) -> Response:
    """Make a memory in quarantine a memory like any other."""
    wanted = uuid_in_path(review_id, "memory in quarantine")
    return _one(services.reviews.approve(caller, caller.scope, [wanted]))


@router.post(
    "/v1/reviews/{review_id}/reject/", summary="Reject one", response_model=DecidedOut, responses=errors(404, 409)
)
@acts(Action.REJECT_REVIEWS)
def reject_review(caller: CallerDep, services: ServicesDep, review_id: ReviewId) -> Response:
    """Remove a memory in quarantine for good."""
    wanted = uuid_in_path(review_id, "memory in quarantine")
    return _one(services.reviews.reject(caller, caller.scope, [wanted]))


def _ids(given: Sequence[str]) -> list[UUID]:
    """Return those that are ids; what is none names nothing, and is told as not found."""
    found = []
    for text in given:
        try:
            found.append(uuid_in_path(text, "memory in quarantine"))
        except NotFound:
            continue
    return found


def _one(decided: Sequence[Decided]) -> Response:
    if decided[0].decision is Decision.NOT_FOUND:
        raise NotFound("there is no such memory in quarantine")
    return Reply(_decided_out(decided[0]))


def _all(happened: str, given: Sequence[str], decided: Sequence[Decided]) -> Response:
    by_id = {str(one.review_id): _decided_out(one) for one in decided}
    missing = {"status": Decision.NOT_FOUND.value, "memory_id": None}
    # What is no id is not told again: it may be anything.
    results = [by_id.get(text.lower()) or {"id": None, **missing} for text in dict.fromkeys(given)]
    done = sum(one["status"] != Decision.NOT_FOUND.value for one in results)
    return Reply({"message": f"{done} of {len(results)} {happened}", "results": results})


def _decided_out(decided: Decided) -> dict[str, Any]:
    return {
        "id": str(decided.review_id),
        "status": decided.decision.value,
        "memory_id": str(decided.memory_id) if decided.memory_id else None,
    }
