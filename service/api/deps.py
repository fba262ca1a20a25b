"""The doorway of every route of a tenant: the credential, the permission, then the body, then the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, ClassVar, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.responses import Response

from service.api.errors import CHALLENGE
from service.api.opening import Opening
from service.api.strictness import Known, check_encoding
from service.audit.details import Reason
from service.audit.trail import purpose_of
from service.auth.acting import HEADER, acting_user, acts_for
from service.auth.presented import IN_URL, secret_of
from service.errors import InsufficientScope, InvalidInput, InvalidToken, MalformedId
from service.policy.table import authorize, names_its_user
from service.scope import Action, Caller, Principal, SubjectKind
from service.strict_json import LARGE, read_object
from service.wiring import Services

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_FACE: Final = "rest"
_CLIENT_HEADERS: Final = ("x-mem0-client", "x-mem0-source", "x-application", "user-agent")
_CLIENT_CHARS: Final = 200
_PURPOSE: Final = "x-purpose"
_ACTION: Final = "memvault_action"
#: Path parameters that hold a name, which the trail never does.
_NAMES: Final = frozenset(f"{kind}_id" for kind in SubjectKind)

# Declared for the OpenAPI document; `GuardedRoute` reads the headers itself, before the body is looked at.
_bearer = HTTPBearer(
    scheme_name="Bearer", description="`Authorization: Bearer <API key or access token>`", auto_error=False
)
_token = APIKeyHeader(
    name="Authorization", scheme_name="Token", description="`Authorization: Token <API key>`", auto_error=False
)
_header = APIKeyHeader(name="X-API-Key", scheme_name="ApiKey", description="The API key", auto_error=False)


class _WholePath(PathConvertor):
    """The rest of a path, line breaks too: names of an earlier release may hold them, and Starlette stops at one."""

    regex = "(?s:.*)"


# Under Starlette's own name, so that the templates of routes stay as logs and metrics have them.
register_url_convertor("path", _WholePath())


class StrictRequest(Request):
    """A request whose JSON is read strictly, once."""

    _object: dict[str, Any] | None = None

    async def json(self) -> Any:
        """Return the body's JSON object."""
        if self._object is None:
            read = partial(read_object, await self.body(), self.headers.get("content-type"))
            # A large one would hold up everybody else on the loop.
            self._object = read() if len(await self.body()) <= LARGE else await run_in_threadpool(read)
        return self._object


def acts(action: Action | None) -> Callable[[Endpoint], Endpoint]:
    """Say which action an endpoint takes, under the router's decorator: the doorway asks for its permission first.

    None is for an endpoint that takes none, because the call is not offered (501, or profiles that are not enabled).
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ACTION, action)
        return endpoint

    return mark


class GuardedRoute(APIRoute):
    """A route that answers nobody without a credential and the permission for its action.

    Both are checked before a byte of the body and before any parameter is looked at, so that what is malformed is
    refused like what is not, and as over MCP. The action itself passes the gate again. What the route does not know of
    the names in the query and the body is refused next.
    """

    #: Whether the call is of Mem0's contract, whose clients send more than is known (`Known`).
    of_mem0: ClassVar[bool] = False

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        if not hasattr(endpoint, _ACTION):
            raise TypeError(f"{path}: say which action it takes, by @acts(Action.…) under the router's decorator")
        self.action: Action | None = getattr(endpoint, _ACTION)
        super().__init__(path, endpoint, **more)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, behind the check."""
        handle = super().get_route_handler()
        has_body = self.body_field is not None
        known = Known.of(self.dependant, of_mem0=self.of_mem0, deletes="DELETE" in (self.methods or ()))
        action = self.action

        async def guarded(request: Request) -> Response:
            services = services_of(request)
            try:
                found = _known(services, request, action)
                caller = found if found is not None else await run_in_threadpool(_admitted, services, request, action)
                request.state.caller = caller
                # A route without an action answers the same whatever it is asked about.
                check_encoding(request.scope, path=action is not None)
                known.check_query(request.query_params)
                strict = StrictRequest(request.scope, request.receive)
                if has_body:
                    # Read here as well, so that no body and a foreign content type meet the strict reader too.
                    known.check_body(await strict.json())
                return await handle(strict)
            except MalformedId:
                if action is not None:
                    refuse = services.installation.trail.refuse
                    await run_in_threadpool(refuse, caller, action, Reason.MALFORMED)
                raise
            except InsufficientScope as error:
                scopes = " ".join(services.authenticator.scopes(error.missing))
                told = f', scope="{scopes}"' if scopes else ""
                error.headers["WWW-Authenticate"] = f'Bearer realm="memvault", error="{error.code}"{told}'
                raise

        return guarded


class Mem0Route(GuardedRoute):
    """A route of Mem0's contract, the same for who may call it and laxer towards what its clients send beside."""

    of_mem0 = True


def services_of(request: Request) -> Services:
    """Return the services.

    Raises:
        StillStarting: while they are being opened.
    """
    opening: Opening = request.app.state.opening
    return opening.services()


def client_of(headers: Headers) -> str:
    """Return what the client calls itself: untrusted and short."""
    for name in _CLIENT_HEADERS:
        if value := headers.get(name):
            return value[:_CLIENT_CHARS]
    return ""


def _known(services: Services, request: Request, action: Action | None) -> Caller | None:
    """Return who calls when that can be told, and let in, without waiting for anything: no thread is needed then."""
    if HEADER in request.headers or "access_token" in request.query_params:
        return None
    principal = services.authenticator.known(secret_of(request.headers), face=_FACE)
    if principal is None or acts_for(principal, None) is not None:
        return None
    caller = _caller_of(principal, request)
    if services.rates.limited(caller) or (caller.purpose is None and _PURPOSE in request.headers):
        return None
    allowed = action is None or (authorize(principal, action) and names_its_user(principal, action))
    return caller if allowed else None


def _admitted(services: Services, request: Request, action: Action | None) -> Caller:
    """Return who calls, and for whom, when it has the permission for the action; a refusal is in the trail."""
    caller = _authenticated(services, request)
    services.rates.admit(caller)
    allowed = action is None or authorize(caller.principal, action)
    try:
        # Here and no sooner: such a request counts too, and what its key may not do is refused as that.
        purpose_of(request.headers.get(_PURPOSE))
        caller = services.acting.narrowed(caller, acting_user(request.headers.getlist(HEADER)))
    except InvalidInput:
        if allowed:
            raise
    if action is not None and not (allowed and names_its_user(caller.principal, action)):
        services.installation.gate.check(caller, action, targets=_targets(request))
    return caller


def _authenticated(services: Services, request: Request) -> Caller:
    request_id = str(request.state.request_id)
    client = client_of(request.headers)
    if "access_token" in request.query_params:
        raise InvalidInput(IN_URL)
    try:
        principal = services.authenticator.authenticate(
            secret_of(request.headers), request_id=request_id, client=client, face=_FACE
        )
    except InvalidToken as error:
        error.headers["WWW-Authenticate"] = f'{CHALLENGE}, error="{error.code}"'
        raise
    return _caller_of(principal, request)


def _caller_of(principal: Principal, request: Request) -> Caller:
    """Return the caller, without a purpose where that is amiss: `_admitted` refuses it."""
    request.state.tenant = str(principal.tenant_id)
    purpose = None
    with suppress(InvalidInput):
        purpose = purpose_of(request.headers.get(_PURPOSE))
    request_id = str(request.state.request_id)
    return Caller(principal, request_id=request_id, client=client_of(request.headers), face=_FACE, purpose=purpose)


def _targets(request: Request) -> list[UUID]:
    """Return the ids in a path, for the row of a refusal; what is malformed is none."""
    found = []
    for name, value in request.path_params.items():
        if name.endswith("_id") and name not in _NAMES:
            with suppress(ValueError):
                found.append(UUID(str(value)))
    return found


async def _caller(
    request: Request,
    _bearer: Annotated[Any, Security(_bearer)],
    _token: Annotated[Any, Security(_token)],
    _header: Annotated[Any, Security(_header)],
) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _services(request: Request) -> Services:
    return services_of(request)


CallerDep = Annotated[Caller, Depends(_caller)]
ServicesDep = Annotated[Services, Depends(_services)]
