"""The MCP face over standard input and output: a server without a store of its own, which forwards to a service.

Each message is a request of its own to the service, so a service that was away is simply there again at the next one.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import anyio
import httpx2
from mcp import MCPError, types
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from pydantic import BaseModel

from service.errors import ConfigurationError, Unavailable
from service.mcp import prompts
from service.observability.release import release

Context = ServerRequestContext[dict[str, Any]]
Parameters = types.RequestParams | None
R = TypeVar("R", bound=BaseModel)

#: The protocol that is spoken with the service: without a handshake, so that there is nothing to keep or to lose.
_VERSION: Final = "2026-07-28"
_CONNECT_SECONDS: Final = 5.0
#: Longer than the service takes for any call before it answers that it took too long.
_ANSWER_SECONDS: Final = 45.0


@dataclass(frozen=True)
class Service:
    """A running service and the key to use there. `key_from` says where the key was found, for messages."""

    url: str
    key: str = field(repr=False)
    key_from: str


def endpoint(url: str) -> str:
    """Return the address of the MCP endpoint for the address of a service, or of that endpoint itself.

    Raises:
        ConfigurationError: for what is no http:// or https:// address.
    """
    try:
        parts = urlsplit(url)
        # Asking for the port is what tells one that is none.
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise ConfigurationError("--url: must be an address such as http://127.0.0.1:8080")
    bare = url.rstrip("/")
    return bare if parts.path.rstrip("/").endswith("/mcp") else f"{bare}/mcp"


def serve_stdio(service: Service) -> None:
    """Serve the tools, resources and prompts of a service until standard input ends or nobody reads the output.

    Raises:
        OSError: when the output cannot be written.
    """
    try:
        anyio.run(_serve, service)
    except BaseExceptionGroup as group:
        # What goes wrong with the service is answered: this is about the streams.
        own, others = group.split(OSError)
        if own is None or others is not None:
            raise
        error: BaseException = own
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, BrokenPipeError):
            raise error from None


async def _serve(service: Service) -> None:
    async with _Forwarder.to(service) as forwarder, stdio_server() as (incoming, outgoing):
        server = forwarder.server()
        await server.run(incoming, outgoing, server.create_initialization_options())


class _Forwarder:
    def __init__(self, service: Service, http: httpx2.AsyncClient) -> None:
        self._service = service
        self._http = http

    @classmethod
    @asynccontextmanager
    async def to(cls, service: Service) -> AsyncIterator[_Forwarder]:
        """Forward to a service until the context ends."""
        http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {service.key}"},
            timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            # The system's authorities, so that one's own can be used; and no proxy picked up on the way.
            verify=ssl.create_default_context(),
            trust_env=False,
        )
        async with http:
            yield cls(service, http)

    def server(self) -> Server[dict[str, Any]]:
        """Return the server that a client on this machine talks to."""
        return Server(
            "memvault",
            version=release(),
            title="Memvault",
            description="Long-term memory for agents, self-hosted.",
            instructions=prompts.INSTRUCTIONS,
            on_list_tools=partial(self._forward, types.ListToolsRequest, types.ListToolsResult),
            on_call_tool=self._call_tool,
            on_list_resources=partial(self._forward, types.ListResourcesRequest, types.ListResourcesResult),
            on_list_resource_templates=partial(
                self._forward, types.ListResourceTemplatesRequest, types.ListResourceTemplatesResult
            ),
            on_read_resource=partial(self._forward, types.ReadResourceRequest, types.ReadResourceResult),
            on_list_prompts=partial(self._forward, types.ListPromptsRequest, types.ListPromptsResult),
            on_get_prompt=partial(self._forward, types.GetPromptRequest, types.GetPromptResult),
        )

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Call a tool. That the service is away, or starting, is an error of the tool, which the agent gets to read.

        Many programs end the agent's run at an error of the protocol, and this one passes.
        """
        try:
            return await self._forward(types.CallToolRequest, types.CallToolResult, context, params)
        except MCPError as error:
            if not _passes(error):
                raise
            return types.CallToolResult(content=[types.TextContent(text=error.error.message)], is_error=True)

    async def _forward(
        self, request: type[types.Request[Any, Any]], result: type[R], context: Context, params: Parameters
    ) -> R:
        # The client's own `_meta` names its protocol and its progress token, and both are others on the way from here.
        bare = None if params is None else params.model_copy(update={"meta": None})
        told = context.session.client_params
        asks = context.meta is not None and "progress_token" in context.meta
        failure: MCPError
        try:
            async with Client(
                streamable_http_client(self._service.url, http_client=self._http),
                mode=_VERSION,
                client_info=told.client_info if told is not None else None,
                cache=None,
            ) as client:
                try:
                    return await client.session.send_request(
                        request(params=bare),
                        result,
                        request_read_timeout_seconds=_ANSWER_SECONDS,
                        progress_callback=context.session.report_progress if asks else None,
                    )
                except MCPError as error:
                    failure = error
        except* httpx2.TransportError as group:
            failure = _Away(self._service.url, _first(group))
        raise self._explained(failure)

    def _explained(self, error: MCPError) -> MCPError:
        """Return an error of the service; that of a wrong key says which one it was."""
        if isinstance(error.error.data, dict) and error.error.data.get("code") in ("unauthenticated", "invalid_token"):
            return MCPError(error.error.code, f"{error.error.message} (the key is from {self._service.key_from})")
        return error


class _Away(MCPError):
    """The service cannot be reached, or went away in the middle of a call."""

    def __init__(self, url: str, reason: BaseException) -> None:
        if isinstance(reason, httpx2.ConnectError | httpx2.ConnectTimeout):
            told = (
                f"no Memvault answers at {url}. Start it with 'memvault serve', or give its address with --url; "
                "then try again: nothing was done"
            )
        else:
            told = (
                f"the connection to the Memvault at {url} broke off ({type(reason).__name__}). What was to be written "
                "may still have been written, so look before you try again"
            )
        super().__init__(types.INTERNAL_ERROR, f"{Unavailable.code}: {told}", data={"code": Unavailable.code})


def _passes(error: MCPError) -> bool:
    """Tell whether the service said, or is taken to say, that it cannot answer now."""
    return (
        error.error.code == types.INTERNAL_ERROR and isinstance(error.error.data, dict) and "code" in error.error.data
    )


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    one: BaseException = group
    while isinstance(one, BaseExceptionGroup):
        one = one.exceptions[0]
    return one
