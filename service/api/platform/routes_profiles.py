"""Routes of the platform's user profiles, which this service does not make: clients read `not_enabled`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.responses import Response

from service.api.deps import CallerDep, Mem0Route, acts
from service.api.errors import errors
from service.api.replies import Reply

router = APIRouter(route_class=Mem0Route, tags=["profiles"])

_OFF: Final[dict[str, Any]] = {"status": "not_enabled", "enabled": False}


class NotEnabledOut(BaseModel):
    """Profiles are not made here."""

    status: str = Field(examples=["not_enabled"])
    enabled: bool
    profile: None = None


@router.get("/v2/profiles/settings/", summary="Profiles: not enabled", response_model=NotEnabledOut, responses=errors())
@router.post(
    "/v2/profiles/settings/", summary="Profiles: not enabled", response_model=NotEnabledOut, responses=errors()
)
@router.post("/v2/profiles/jobs/", summary="Profiles: not enabled", response_model=NotEnabledOut, responses=errors())
@acts(None)
def profiles(caller: CallerDep) -> Response:
    """Answer `not_enabled`; nothing is read and nothing is kept."""
    return Reply(_OFF)


@router.get(
    "/v2/profiles/jobs/{job_id}/", summary="Profiles: not enabled", response_model=NotEnabledOut, responses=errors()
)
@acts(None)
def profile_job(caller: CallerDep, job_id: Annotated[str, Path(description="Any id.")]) -> Response:
    """Answer `not_enabled`: there are no jobs."""
    return Reply(_OFF | {"job": None})


@router.get(
    "/v2/entities/user/{user_id:path}/profile/",
    summary="Profiles: not enabled",
    response_model=NotEnabledOut,
    responses=errors(),
)
@acts(None)
def profile(caller: CallerDep, user_id: Annotated[str, Path(description="Any user.")]) -> Response:
    """Answer `not_enabled`, whether there is such a user or not."""
    return Reply(_OFF | {"profile": None})
