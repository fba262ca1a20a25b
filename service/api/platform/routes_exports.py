"""Routes of exports and imports: asked for, read in a schema's shape or as JSON lines, and taken in as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import chain
from typing import Annotated, Any, Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from service.api.deps import CallerDep, GuardedRoute, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.export_schemas import ExportGetIn, ExportIn, ExportOut, ImportedOut
from service.api.platform.requests import names_of, uuid_in_path
from service.api.replies import Reply
from service.audit.moves import ImportSource
from service.errors import InvalidInput
from service.memories.limits import check_names
from service.portability.exports import Batch, Wanted
from service.portability.imports import Imported
from service.portability.lines import read_lines
from service.portability.projection import read_schema
from service.portability.records import Placed, Unreadable
from service.records import SubjectNames
from service.scope import Action, Caller
from service.wiring import Services

router = APIRouter(route_class=Mem0Route, tags=["exports"])
#: What no client of Mem0 knows.
own = APIRouter(route_class=GuardedRoute, tags=["exports"])
_NDJSON: Final = "application/x-ndjson"
#: Threads of their own: one that waits for the language model would be missing to everybody else.
_AT_ONCE: Final = CapacityLimiter(8)
#: The same for imports and their dry runs: one that is as large as a body may be takes seconds to minutes.
_IMPORTS_AT_ONCE: Final = CapacityLimiter(4)
_LINES_200: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "One object a line; the last one is of type `end`.", "content": {_NDJSON: {}}}
}


@router.post("/v1/exports/", summary="Ask for an export", status_code=201, response_model=ExportOut, responses=errors())
@acts(Action.REQUEST_EXPORT)
def create_export(caller: CallerDep, services: ServicesDep, body: ExportIn) -> Response:
    """Note what is to be exported. Nothing is copied: the export is made while it is read. Needs `memory:export`."""
    wanted = _wanted(names_of(body), body.filters, read_schema(body.wanted_schema), body.export_instructions)
    export_id = services.exports.request(caller, caller.scope, wanted)
    return Reply({"message": "The export can be read", "id": str(export_id)}, status_code=201)


@router.post("/v1/exports/get/", summary="Read an export in its schema", responses=errors(404))
@acts(Action.READ_EXPORT)
async def get_export(caller: CallerDep, services: ServicesDep, body: ExportGetIn) -> Response:
    """Return the export in the shape of the schema that it was asked for with. Needs `memory:export`."""
    export_id = None if body.memory_export_id is None else uuid_in_path(body.memory_export_id, "export")
    wanted = _wanted(names_of(body), body.filters, None, None)

    def read() -> Response:
        return Reply(services.projections.read(caller, caller.scope, export_id, wanted))

    return await run_sync(read, limiter=_AT_ONCE)


@own.get("/v1/exports/{export_id}/download/", summary="Download an export", responses=errors(404) | _LINES_200)
@acts(Action.READ_EXPORT)
def download_export(
    caller: CallerDep,
    services: ServicesDep,
    export_id: Annotated[str, Path(description="Id of an export.")],
    after: Annotated[
        str | None,
        Query(description="Go on behind a memory: `memories:` and the id of the last one that arrived whole."),
    ] = None,
) -> Response:
    """Stream the export as JSON lines: subjects, memories each with its history, and what is left of deleted ones."""
    wanted = services.exports.find(caller, caller.scope, uuid_in_path(export_id, "export"))
    batches = services.exports.read(caller, caller.scope, wanted, after=after)
    # The first one before the answer begins: where it cannot be read or audited, that is the answer.
    first = next(batches)
    return StreamingResponse(_lines(chain([first], batches)), media_type=_NDJSON)


@own.post(
    "/v1/imports/",
    summary="Import the lines of an export",
    response_model=ImportedOut,
    responses=errors(),
    openapi_extra={"requestBody": {"required": False, "content": {_NDJSON: {"schema": {"type": "string"}}}}},
)
@acts(Action.IMPORT_MEMORIES)
async def import_lines(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    dry_run: Annotated[bool, Query(description="Only say what would be imported.")] = False,
) -> Response:
    """Import JSON lines of an export under their ids and times; an id that is here is passed over.

    A body may have `server.body_limit` bytes; what is larger goes through `memvault import`. Needs `memory:import`.
    """
    content = await request.body()
    report = await run_sync(_imported, caller, services, content, dry_run, limiter=_IMPORTS_AT_ONCE)
    return Reply(imported_out(report))


def imported_out(report: Imported) -> dict[str, Any]:
    """Return what an import did as it is told."""
    return {
        "import_id": str(report.import_id),
        "dry_run": report.dry_run,
        "imported": report.memories,
        "known": report.known,
        "history": report.history,
        "subjects": report.subjects,
        "refused": report.refused,
        "refusals": [{"where": one.where, "why": one.why} for one in report.refusals],
    }


def _imported(caller: Caller, services: Services, content: bytes, dry_run: bool) -> Imported:
    def source() -> Iterator[Placed]:
        # One line after the other: taking millions of empty ones apart at once would keep everybody waiting.
        lines = enumerate(BytesIO(content), 1)
        return read_lines((f"line {number}", line) for number, line in lines if line.strip())

    try:
        return services.imports.run(caller, caller.scope, source, origin=ImportSource.EXPORT, dry_run=dry_run)
    except Unreadable as error:
        raise InvalidInput(str(error)) from None


def _wanted(names: SubjectNames, filters: Any, schema: dict[str, Any] | None, instructions: str | None) -> Wanted:
    check_names(names)
    return Wanted(names, filters, schema, instructions)


def _lines(batches: Iterable[Batch]) -> Iterator[bytes]:
    for batch in batches:
        yield b"".join(batch.lines)
