"""The route by which users of memories say what these are worth."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.reading import uuid_in_path
from service.api.replies import Reply
from service.memories.feedback import Verdict
from service.scope import Action

router = APIRouter(route_class=Mem0Route, tags=["feedback"])


def _verdict(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class FeedbackIn(BaseModel):
    """What a memory is worth."""

    model_config = ConfigDict(extra="ignore", strict=True)

    memory_id: str
    # Not strict: a strict enumeration is refused with the name of its class, and without its values.
    feedback: Annotated[Verdict | None, BeforeValidator(_verdict)] = Field(
        None, strict=False, description="null takes back what this key said before."
    )
    feedback_reason: str | None = Field(None, description="Why; 2000 characters at most, kept encrypted.")


class FeedbackOut(BaseModel):
    """What is kept."""

    id: str
    feedback: Verdict | None
    feedback_reason: str | None


@router.post("/v1/feedback/", summary="Say what a memory is worth", response_model=FeedbackOut, responses=errors(404))
@acts(Action.GIVE_FEEDBACK)
def give_feedback(caller: CallerDep, services: ServicesDep, body: FeedbackIn) -> Response:
    """Keep one word a key and memory; the newest counts. It leaves with the memory."""
    wanted = uuid_in_path(body.memory_id, "memory")
    given = services.feedback.give(caller, caller.scope, wanted, body.feedback, body.feedback_reason)
    verdict = given.verdict.value if given.verdict else None
    return Reply({"id": str(given.id), "feedback": verdict, "feedback_reason": given.reason})
