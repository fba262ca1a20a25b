"""One shape for every error: `{detail, error, code, request_id}`, whoever raised it."""

from __future__ import annotations

import http
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.api.replies import Reply
from service.errors import InvalidInput, MemvaultError, NotOffered, TooLarge
from service.strict_json import wish

#: Where errors of the shape of a request are told; more than this many at once help nobody.
_MOST_TOLD: Final = 3
_PLACE_CHARS: Final = 64
_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: TooLarge.code}
_DETAILS: Final = {
    404: "there is no such route; paths end with a slash where the documentation shows one",
    405: "this route does not take that method",
}
#: Where clients of Mem0's cloud sign people up: there are no routes, and the answer says what to do instead.
_SIGN_UP: Final = "/api/v1/auth/"
_NO_SIGN_UP: Final = (
    "there is no sign-up here: an operator makes keys with `memvault key create`, or with POST /v1/keys/; "
    "give yours to the client as its API key"
)
_RATE_HEADERS: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
CHALLENGE: Final = 'Token realm="memvault", Bearer realm="memvault"'


class ErrorOut(BaseModel):
    """What every error answers with."""

    detail: str = Field(description="What is wrong, where, and what to do next.")
    error: str = Field(description="The same text; some clients read this name.")
    code: str = Field(description="A stable name of the kind of error.", examples=[InvalidInput.code])
    request_id: str = Field(description="Also in the header `X-Request-ID` and in the audit trail.")


_MEANINGS: Final = {
    400: "The request cannot be understood or breaks a limit.",
    401: "No credential, or one that is not valid.",
    403: "The credential may not do this.",
    404: "There is no such thing within the caller's scope.",
    408: "The body did not arrive in time.",
    409: "The request contradicts the present state.",
    413: "The body, a message or the number of items is over its limit, or the tenant has no room for more memories.",
    429: "Too many calls, or too many adds that wait; `Retry-After` says when to try again.",
    500: "An error of the service; its log has the request id.",
    501: "A call of the Platform that this service does not offer; the detail says what to do instead.",
    503: "A part that is needed is away or still starting.",
}
_EVERYWHERE: Final = (400, 401, 403, 408, 413, 429, 500, 503)


def errors(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the error answers of a route for its OpenAPI entry: those that all routes have, and these."""
    answers: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*_EVERYWHERE, *more}):
        answers[status] = {"model": ErrorOut, "description": _MEANINGS[status]}
    answers[401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    answers[503]["headers"] = {"Retry-After": {"schema": {"type": "string"}, "required": True}}
    answers[429]["headers"] = {
        "Retry-After": {"schema": {"type": "string"}, "required": True},
        **{name: {"schema": {"type": "string"}} for name in _RATE_HEADERS},
    }
    return answers


def error_reply(
    status: int, code: str, detail: str, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """Return an error as an answer."""
    more = dict(headers or {})
    if status == http.HTTPStatus.UNAUTHORIZED:
        more.setdefault("WWW-Authenticate", CHALLENGE)
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        more.setdefault("Retry-After", "2")
    body = {"detail": detail, "error": detail, "code": code, "request_id": request_id}
    return Reply(body, status_code=status, headers=more)


def add_error_handlers(app: FastAPI) -> None:
    """Make the app answer every error in the one shape."""

    @app.exception_handler(MemvaultError)
    async def ours(request: Request, error: MemvaultError) -> Response:
        return error_reply(error.status, error.code, error.detail, request.state.request_id, error.headers)

    @app.exception_handler(RequestValidationError)
    async def shape(request: Request, error: RequestValidationError) -> Response:
        return error_reply(InvalidInput.status, InvalidInput.code, flattened(error), request.state.request_id)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        status = error.status_code
        if status == http.HTTPStatus.NOT_FOUND and request.url.path.startswith(_SIGN_UP):
            return error_reply(NotOffered.status, NotOffered.code, _NO_SIGN_UP, request.state.request_id)
        detail = _DETAILS.get(status, http.HTTPStatus(status).phrase)
        code = _CODES.get(status, InvalidInput.code if status < 500 else MemvaultError.code)
        headers = dict(error.headers or {})
        if status == http.HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_allowed(request)) or headers.get("Allow", "")
        return error_reply(status, code, detail, request.state.request_id, headers)


def _allowed(request: Request) -> list[str]:
    """Return the methods of a path. The router names only those of the first route that matches it."""
    methods: dict[str, set[str]] = {}
    for route in iter_route_contexts(request.app.routes):
        if isinstance(route.original_route, APIRoute) and route.path_regex.match(request.url.path):
            methods.setdefault(route.path or "", set()).update(route.methods or ())
    # `/v1/memories/search/` also looks like a memory with that id: the path with the fewest parameters is meant.
    return sorted(methods[min(methods, key=lambda path: path.count("{"))]) if methods else []


def flattened(error: RequestValidationError) -> str:
    """Return the first errors of a request's shape as one line: `body.messages.0.role: Field required`."""
    told = []
    for one in error.errors()[:_MOST_TOLD]:
        place = ".".join(str(part)[:_PLACE_CHARS] for part in one["loc"])
        told.append(f"{place}: {wish(one)}")
    return "; ".join(told)
