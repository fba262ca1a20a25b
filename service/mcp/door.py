"""The door of the MCP face: host and origin, readiness and credential of every HTTP request, before the protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from mcp import types
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service import clock
from service.audit.trail import printable, purpose_of
from service.auth.acting import HEADER, acting_user
from service.auth.presented import IN_URL, secret_of
from service.errors import InsufficientScope, InvalidInput, MemvaultError, Unauthenticated
from service.mcp.bodies import fault_of, is_stateless, peeked
from service.mcp.metadata import ProtectedResource
from service.mcp.needs import Intent, intent_of
from service.mcp.threads import Threads, TimeLimitReached
from service.policy.table import authorize
from service.scope import Caller, Principal, PrincipalKind
from service.strict_json import LARGE
from service.wiring import Services

#: Where the visitor of a request stands in its ASGI scope.
_VISITOR: Final = "memvault.visitor"
_PATH: Final = "/mcp"
_HOST_REFUSED: Final = "the service does not answer to this host name: add it to server.allowed_hosts"
_ORIGIN_REFUSED: Final = "web pages of this origin may not call the service: add its host to server.allowed_hosts"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sent an HTTP request, checked, with the services of that moment."""

    services: Services
    principal: Principal
    request_id: str
    purpose: str | None
    #: Whether it is counted by the tenant's rate already.
    admitted: bool = False


def visitor_of(request: Request) -> Visitor:
    """Return who sent the request that carried a message."""
    visitor: Visitor = request.scope[_VISITOR]
    return visitor


def allowed(hosts: list[str]) -> TransportSecuritySettings:
    """Return the Host and Origin headers that pass: this machine and the given hosts, on any port."""
    names = ["127.0.0.1", "localhost", "[::1]", *hosts]
    any_port = [form for name in names for form in (name, f"{name}:*")]
    return TransportSecuritySettings(
        allowed_hosts=any_port,
        allowed_origins=[f"{scheme}://{name}" for scheme in ("http", "https") for name in any_port],
    )


class Door:
    """An ASGI app that lets a request through to another one when it may come in.

    Answers 421 to a foreign Host and 403 to a foreign Origin (a web page that was rebound to this address), 503 while
    nothing can be served, 401 with a challenge to what is no valid credential, and 405 to all methods but POST: the
    service keeps no sessions, so there is no stream to open (GET) and none to end (DELETE). A message that an access
    token does not suffice for is 403 with the scopes that are missing, for which its client can ask the issuer; with
    an API key it goes through, and the protocol answers with an error that an agent can read.
    """

    def __init__(
        self,
        app: ASGIApp,
        services: Callable[[], Services],
        threads: Threads,
        security: TransportSecuritySettings,
        resource: ProtectedResource,
        *,
        body_limit: int,
    ) -> None:
        self._app = app
        self._services = services
        self._threads = threads
        self._security = TransportSecurityMiddleware(security)
        self._resource = resource
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or answer it here."""
        # For the log line, the metrics and the traces of whoever serves this app: it is no route of FastAPI's.
        scope.setdefault("state", {})["route"] = _PATH
        request = Request(scope, receive)
        request_id = str(scope.get("state", {}).get("request_id") or clock.new_id())
        refusal = await self._refusal(request, request_id)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        visitor: Visitor = scope[_VISITOR]
        body, receive = await peeked(receive, self._body_limit)
        refusal = await self._faulty(body, request, request_id)
        if refusal is None and visitor.principal.kind is PrincipalKind.TOKEN:
            refusal = await self._out_of_scope(visitor, intent_of(body), request)
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, request: Request, request_id: str) -> Response | None:
        foreign = await self._security.validate_request(request)
        if foreign is not None:
            code, detail = (
                ("foreign_origin", _ORIGIN_REFUSED) if foreign.status_code == 403 else ("foreign_host", _HOST_REFUSED)
            )
            return _answer(foreign.status_code, code, detail, request_id)
        if "access_token" in request.query_params:
            told = {"WWW-Authenticate": self._resource.malformed()}
            return _answer(400, "invalid_request", IN_URL, request_id, told)
        try:
            services = self._services()
            visitor = await self._threads.run(partial(_visitor_of, services, request, request_id))
        except Unauthenticated as error:
            told = {"WWW-Authenticate": self._resource.unauthorized(invalid=bool(secret_of(request.headers)))}
            return _answer(error.status, error.code, error.detail, request_id, told)
        except MemvaultError as error:
            return _answer(error.status, error.code, error.detail, request_id, error.headers)
        except TimeLimitReached:
            return _answer(503, "unavailable", "the credential could not be checked in time; try again", request_id)
        if request.method != "POST":
            detail = "send JSON-RPC messages by POST; there are no sessions"
            return _answer(405, "method_not_allowed", detail, request_id, {"Allow": "POST"})
        scope = request.scope
        scope[_VISITOR] = visitor
        # For the log line and the metrics of whoever serves this app.
        scope.setdefault("state", {})["tenant"] = str(visitor.principal.tenant_id)
        return None

    async def _faulty(self, body: bytes, request: Request, request_id: str) -> Response | None:
        if len(body) > self._body_limit:
            return None
        look = partial(fault_of, body, stateless=is_stateless(request))
        try:
            # A large one would hold up everybody else on the loop.
            fault = look() if len(body) <= LARGE else await self._threads.run(look)
        except TimeLimitReached:
            return _answer(503, "unavailable", "no answer in time; try again", request_id)
        if fault is None:
            return None
        return _answer(400, "invalid_request", fault.detail, request_id, kind=fault.number)

    async def _out_of_scope(self, visitor: Visitor, intent: Intent | None, request: Request) -> Response | None:
        """Return the refusal of what the token's scopes do not cover; it is in the trail by then.

        It counts as a request before that, so that what is refused cannot fill the trail faster than what is done.
        """
        if intent is None or authorize(visitor.principal, intent.action):
            return None
        client = printable(intent.client or request.headers.get("user-agent", ""))
        caller = Caller(
            visitor.principal, request_id=visitor.request_id, client=client, purpose=visitor.purpose, face="mcp"
        )
        number = intent.message_id
        try:
            if not visitor.admitted:
                await self._threads.run(partial(visitor.services.rates.admit, caller))
            await self._threads.run(partial(visitor.services.installation.gate.check, caller, intent.action))
        except InsufficientScope as error:
            scopes = visitor.services.authenticator.scopes(error.missing)
            told = {"WWW-Authenticate": self._resource.forbidden(scopes)}
            return _answer(error.status, error.code, error.detail, visitor.request_id, told, number=number)
        except MemvaultError as error:
            return _answer(error.status, error.code, error.detail, visitor.request_id, error.headers, number=number)
        except TimeLimitReached:
            return _answer(503, "unavailable", "no answer in time; try again", visitor.request_id, number=number)
        return None


def _visitor_of(services: Services, request: Request, request_id: str) -> Visitor:
    """Return whom the credential stands for, narrowed to the user whom the request names, and whether it was counted.

    It counts by the tenant's rate before the database is asked about that user: one that is not known is not
    remembered, so that each request would ask. It counts too when it is refused for what its headers say.
    """
    client = request.headers.get("user-agent", "")
    principal = services.authenticator.authenticate(
        secret_of(request.headers), request_id=request_id, client=client, face="mcp"
    )
    caller = Caller(principal, request_id=request_id, client=printable(client), face="mcp")
    try:
        purpose = purpose_of(request.headers.get("x-purpose"))
        named = acting_user(request.headers.getlist(HEADER))
        counts = services.acting.asks(caller, named) and services.rates.limited(caller)
        if counts:
            services.rates.admit(caller)
        principal = services.acting.narrowed(caller, named).principal
    except InvalidInput:
        services.rates.admit(caller)
        raise
    return Visitor(services, principal, request_id, purpose, admitted=counts)


def _answer(
    status: int,
    code: str,
    detail: str,
    request_id: str,
    headers: dict[str, str] | None = None,
    *,
    number: str | int | None = None,
    kind: int | None = None,
) -> Response:
    """Return a refusal as an error of JSON-RPC: clients show its message, of any other body only that it failed."""
    if kind is None:
        kind = types.INTERNAL_ERROR if status >= 500 else types.INVALID_REQUEST
    error = {"code": kind, "message": f"{code}: {detail}", "data": {"code": code, "request_id": request_id}}
    return JSONResponse({"jsonrpc": "2.0", "id": number, "error": error}, status_code=status, headers=headers)
