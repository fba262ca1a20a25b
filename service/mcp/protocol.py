"""The MCP server: what it answers to each method of the protocol, for the caller of that message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

from mcp import MCPError, types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from pydantic import ValidationError
from starlette.requests import Request

from service import clock
from service.audit.details import Reason
from service.audit.trail import printable
from service.auth.tokens import is_user_name
from service.errors import InvalidInput, MalformedId, MemvaultError, NotFound, TooManyRequests, Unavailable, shown
from service.mcp import prompts, resources
from service.mcp.door import Visitor, visitor_of
from service.mcp.threads import Threads, TimeLimitReached
from service.mcp.tools import TOOLS, Tool, acts_by_argument, tools_of
from service.observability import logs, tracing
from service.observability.metrics import TOOL_CALLS, TOOL_SECONDS
from service.observability.release import release
from service.policy.table import authorize, names_its_user
from service.scope import Action, Caller, Principal, SubjectKind
from service.strict_json import wish

_log: Final = logging.getLogger("memvault.mcp")
T = TypeVar("T")
#: How a call ended, as the metrics tell it: because of the caller, or of the service.
_REFUSED: Final = "refused"
_BROKEN: Final = "failed"
Context = ServerRequestContext[dict[str, Any], Request]

#: Arguments of Mem0's own server that have no meaning here and that agents were taught to send.
_PASSED_OVER: Final = frozenset({"enable_graph"})
#: Arguments that other tools take where these take a filter.
_IDS: Final = frozenset(f"{kind.value}_id" for kind in SubjectKind)
_SHOWN_PROBLEMS: Final = 5
#: These lists depend on the credential, and on the acting user that a client's header names: both seldom change, so a
#: client may keep them for itself for a while. What is refused is decided at each call.
_LISTS: Final = CacheHint(ttl_ms=60_000, scope="private")
_NEVER: Final = CacheHint(ttl_ms=0, scope="private")


def create_server(threads: Threads) -> Server[dict[str, Any]]:
    """Return the MCP server. It keeps nothing between messages, so any replica can answer any of them."""
    protocol = _Protocol(threads)
    return Server(
        "memvault",
        version=release(),
        title="Memvault",
        description="Long-term memory for agents, self-hosted.",
        instructions=prompts.INSTRUCTIONS,
        cache_hints={
            "tools/list": _LISTS,
            "resources/list": _NEVER,
            "resources/templates/list": _LISTS,
            "prompts/list": _LISTS,
            "resources/read": _NEVER,
            "server/discover": _LISTS,
        },
        get_tool_input_schema=lambda name: TOOLS[name].input_schema if name in TOOLS else None,
        on_list_tools=protocol.list_tools,
        on_call_tool=protocol.call_tool,
        on_list_resources=protocol.list_resources,
        on_list_resource_templates=protocol.list_resource_templates,
        on_read_resource=protocol.read_resource,
        on_list_prompts=protocol.list_prompts,
        on_get_prompt=protocol.get_prompt,
    )


class _Protocol:
    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    async def list_tools(self, context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        _refuse_cursor(params)
        return types.ListToolsResult(tools=list(tools_of(_visitor(context).principal)))

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {shown(params.name)}")
        given = {key: value for key, value in (params.arguments or {}).items() if key not in _PASSED_OVER}
        began, outcome = clock.monotonic(), _BROKEN
        state = {} if context.request is None else context.request.scope.get("state", {})
        try:
            with (
                logs.about(state),
                tracing.continued(f"tool {tool.name}", "internal", state.get("traceparent"), {}) as opened,
            ):
                result, outcome = await self._call(context, tool, given)
                if opened is not None:
                    opened.set_attributes({"mcp.tool.name": tool.name, "memvault.outcome": outcome})
            return result
        finally:
            TOOL_CALLS.labels(tool.name, outcome).inc()
            TOOL_SECONDS.labels(tool.name).observe(clock.monotonic() - began)

    async def _call(self, context: Context, tool: Tool, given: dict[str, Any]) -> tuple[types.CallToolResult, str]:
        """Call a tool and return what it answers, with whether that went well for the metrics."""
        visitor, caller = _visitor(context), _caller(context)
        try:
            await self._admit(visitor, caller)
            if acts_by_argument(caller.principal):
                named = given.get("user_id") if "user_id" in tool.takes.model_fields else given.pop("user_id", None)
                caller = await self._threads.run(partial(_acting, visitor, caller, named))
            # Before the arguments are looked at, so that a refusal is in the trail however the call is made.
            await self._authorize(visitor, caller, tool.action)
            _refuse_unknown(tool, given, visitor.principal)
            arguments = tool.takes.model_validate(given)
            run = partial(tool.run, visitor.services, caller, arguments)
            try:
                answer = await self._threads.run(run, tell=partial(_tell, context))
            except MalformedId:
                refuse = visitor.services.installation.trail.refuse
                await self._threads.run(partial(refuse, caller, tool.action, Reason.MALFORMED))
                raise
            result = types.CallToolResult(
                content=[types.TextContent(text=tool.text(answer))],
                structured_content=answer.model_dump(mode="json"),
            )
            return result, "ok"
        except ValidationError as error:
            return _failed(InvalidInput.code, _problems(error, tool, visitor.principal)), _REFUSED
        except (Unavailable, TooManyRequests) as error:
            wait = f"{error.detail} (try again in {error.headers['Retry-After']} s)"
            return _failed(error.code, wait), _REFUSED if error.status < 500 else _BROKEN
        except MemvaultError as error:
            return _failed(error.code, error.detail), _REFUSED if error.status < 500 else _BROKEN
        except TimeLimitReached:
            return _failed(Unavailable.code, self._too_slow()), _BROKEN
        except Exception:
            _log.exception("a tool failed", extra={"request_id": visitor.request_id, "method": tool.name})
            told = f"the call failed inside the service; request id {visitor.request_id}"
            return _failed("internal_error", told), _BROKEN

    async def list_resources(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        visitor, caller = _visitor(context), _caller(context)
        # A system agent that did not say for whom it asks has no profiles to be shown.
        if not authorize(visitor.principal, Action.LIST_ENTITIES) or acts_by_argument(visitor.principal):
            _refuse_cursor(params)
            return types.ListResourcesResult(resources=[])
        try:
            number = resources.page_of(params.cursor if params is not None else None)
        except InvalidInput as error:
            raise MCPError(types.INVALID_PARAMS, f"Invalid cursor: {error.detail}") from None
        found = partial(resources.resources_of, visitor.services, caller, number)
        listed, cursor = await self._answered(found, context)
        return types.ListResourcesResult(resources=listed, next_cursor=cursor)

    async def list_resource_templates(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        _refuse_cursor(params)
        offered = [resources.TEMPLATE] if authorize(_visitor(context).principal, Action.LIST) else []
        return types.ListResourceTemplatesResult(resource_templates=offered)

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        visitor, caller = _visitor(context), _caller(context)

        def read() -> types.TextResourceContents:
            acting = caller
            if acts_by_argument(caller.principal):
                acting = _acting(visitor, caller, resources.user_of(params.uri))
            return resources.read(visitor.services, acting, params.uri)

        return types.ReadResourceResult(contents=[await self._answered(read, context)])

    async def list_prompts(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListPromptsResult:
        _refuse_cursor(params)
        return types.ListPromptsResult(prompts=[prompts.PROMPT])

    async def get_prompt(self, context: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        if params.name != prompts.NAME:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {shown(params.name)}")
        messages = prompts.messages((params.arguments or {}).get("user_id"))
        return types.GetPromptResult(description=prompts.PROMPT.description, messages=messages)

    async def _admit(self, visitor: Visitor, caller: Caller) -> None:
        if not visitor.admitted and visitor.services.rates.limited(caller):
            await self._threads.run(partial(visitor.services.rates.admit, caller))

    async def _authorize(self, visitor: Visitor, caller: Caller, action: Action) -> None:
        if not (authorize(caller.principal, action) and names_its_user(caller.principal, action)):
            await self._threads.run(partial(visitor.services.installation.gate.check, caller, action))

    async def _answered(self, action: Callable[[], T], context: Context) -> T:
        """Run an action whose errors are errors of the protocol."""
        visitor = _visitor(context)
        try:
            await self._admit(visitor, _caller(context))
            return await self._threads.run(action, tell=partial(_tell, context))
        except (InvalidInput, NotFound) as error:
            # Which resource it was: clients read several at once.
            about = context.params.get("uri") if context.params is not None else None
            _raise(types.INVALID_PARAMS, error.code, error.detail, **({} if about is None else {"uri": about}))
        except MemvaultError as error:
            _raise(types.INTERNAL_ERROR, error.code, error.detail)
        except TimeLimitReached:
            _raise(types.INTERNAL_ERROR, Unavailable.code, self._too_slow())
        except Exception:
            _log.exception("a resource failed", extra={"request_id": visitor.request_id})
            _raise(
                types.INTERNAL_ERROR, "internal_error", f"failed inside the service; request id {visitor.request_id}"
            )

    def _too_slow(self) -> str:
        return (
            f"no answer within {self._threads.seconds:g} s; what was to be written may still be written, "
            "so look before you try again"
        )


def _visitor(context: Context) -> Visitor:
    if context.request is None:
        raise MCPError(types.INTERNAL_ERROR, "the service is reached over HTTP only")
    return visitor_of(context.request)


def _caller(context: Context) -> Caller:
    """Return who calls. The client names itself in each message of the newer protocol, in its User-Agent before."""
    visitor = _visitor(context)
    told = context.session.client_params
    if told is not None:
        client = f"{told.client_info.name}/{told.client_info.version}"
    else:
        client = context.request.headers.get("user-agent", "") if context.request is not None else ""
    return Caller(
        visitor.principal,
        request_id=visitor.request_id,
        client=printable(client),
        face="mcp",
        purpose=visitor.purpose,
    )


def _acting(visitor: Visitor, caller: Caller, named: Any) -> Caller:
    """Return the caller as it acts for the user that an argument names; what is no name is refused later on."""
    return visitor.services.acting.narrowed(caller, named) if is_user_name(named) else caller


async def _tell(context: Context, seconds: float) -> None:
    """Tell a client that asked for progress that its call still goes on: how long it will take is not known."""
    await context.session.report_progress(round(seconds, 1), message=f"working for {seconds:.0f} s")


def _refuse_cursor(params: types.PaginatedRequestParams | None) -> None:
    """Refuse every cursor: the lists have one page, so none was ever given out."""
    if params is not None and params.cursor is not None:
        raise MCPError(types.INVALID_PARAMS, "Invalid cursor: this list has one page")


def _failed(code: str, detail: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=f"{code}: {detail}")], is_error=True)


def _raise(number: int, code: str, detail: str, **more: Any) -> NoReturn:
    raise MCPError(number, f"{code}: {detail}", data={"code": code, **more}) from None


def _refuse_unknown(tool: Tool, given: Mapping[str, Any], principal: Principal) -> None:
    """Refuse more unknown arguments than are told: the library would make a problem of each."""
    unknown = given.keys() - tool.takes.model_fields.keys()
    if len(unknown) > _SHOWN_PROBLEMS:
        some = ", ".join(shown(one) for one in sorted(unknown)[:_SHOWN_PROBLEMS])
        raise InvalidInput(f"{some} and more: there are no such arguments; {_takes(tool, principal)}")


def _problems(error: ValidationError, tool: Tool, principal: Principal) -> str:
    """Tell what is wrong with arguments, without the values that were given."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    told = [f"{_place(one['loc'])}: {_wish(one, tool)}" for one in found[:_SHOWN_PROBLEMS]]
    if any(_is_unknown(one) for one in found[:_SHOWN_PROBLEMS]):
        told.append(_takes(tool, principal))
    return "; ".join(told)


def _place(where: tuple[int | str, ...]) -> str:
    return ".".join(shown(str(part)) for part in where) or "arguments"


def _wish(problem: Mapping[str, Any], tool: Tool) -> str:
    if _is_unknown(problem) and problem["loc"][0] in _IDS and "filters" in tool.takes.model_fields:
        return "goes into filters"
    if problem["type"] == "extra_forbidden":
        return "there is no such argument" if _is_unknown(problem) else "there is no such field; see the input schema"
    if problem["type"] == "missing":
        return "is needed"
    return wish(problem)


def _is_unknown(problem: Mapping[str, Any]) -> bool:
    """Tell whether it is an argument that the tool does not know, and not a part of one."""
    return problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1


def _takes(tool: Tool, principal: Principal) -> str:
    return f"{tool.name} takes {', '.join(tool.shown_to(principal).input_schema['properties'])}"
