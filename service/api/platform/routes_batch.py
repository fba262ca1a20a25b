"""Routes for batches: change or delete up to 1,000 memories in one call, with a report on each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.batch_schemas import BatchDeleteIn, BatchOut, BatchUpdateIn, NamedMemory, NamedUpdate
from service.api.platform.requests import edit_of
from service.api.reading import uuid_in_path
from service.api.replies import Reply
from service.errors import InvalidInput, NotFound
from service.memories.batch import BatchEdit, Report
from service.memories.edits import Edit
from service.scope import Action

router = APIRouter(route_class=Mem0Route, tags=["batches"])

_PATH: Final = "/v1/batch/"


@router.put(_PATH, summary="Update up to 1000 memories", response_model=BatchOut, responses=errors())
@acts(Action.UPDATE_BATCH)
def update_batch(caller: CallerDep, services: ServicesDep, body: BatchUpdateIn) -> Response:
    """Change memories. What cannot be changed is left as it is, told in the report, and stops no other."""
    report = services.batches.update(caller, caller.scope, [_edit(item) for item in body.memories])
    return Reply(_answer(body.memories, report, "UPDATED", "updated"))


@router.delete(_PATH, summary="Delete up to 1000 memories", response_model=BatchOut, responses=errors())
@acts(Action.DELETE_BATCH)
def delete_batch(caller: CallerDep, services: ServicesDep, body: BatchDeleteIn) -> Response:
    """Delete memories, and their texts wherever they are kept. What is not there is told in the report."""
    report = services.batches.delete(caller, caller.scope, [_id(item) for item in body.memories])
    return Reply(_answer(body.memories, report, "DELETED", "deleted"))


def _id(item: NamedMemory) -> UUID | None:
    try:
        return uuid_in_path(item.memory_id, "memory")
    except NotFound:
        return None


def _edit(item: NamedUpdate) -> BatchEdit:
    try:
        return BatchEdit(_id(item), edit_of(item))
    except InvalidInput as error:
        return BatchEdit(_id(item), Edit(), error)


def _answer(items: Sequence[NamedMemory], report: Report, status: str, verb: str) -> dict[str, Any]:
    results = [
        {
            "memory_id": item.memory_id,
            "status": "FAILED" if error else status,
            "code": error.code if error else None,
            "detail": error.detail if error else None,
        }
        for item, error in zip(items, report, strict=True)
    ]
    count = sum(error is None for error in report)
    if count == len(items):
        message = f"Successfully {verb} {count} memories"
    else:
        message = f"{count} of {len(items)} memories {verb}; results tells why not the others"
    return {"message": message, "count": count, "results": results}
