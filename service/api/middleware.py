"""What surrounds every request: its id, the body limit, security headers, one log line, and no leaking exceptions."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import clock
from service.api.errors import error_reply
from service.api.metrics import RequestMetrics
from service.errors import MemvaultError, TooLarge
from service.observability import logs, tracing

_log = logging.getLogger("memvault.api")

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Asked every few seconds by machines: no traces of these.
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_NO_ROUTE: Final = "unmatched"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
_OTHER: Final = "other"
#: What logs and metrics tell of a request that its client broke off before it was whole; as other servers do.
_BROKEN_OFF: Final = 499


class Surroundings:
    """Gives each request its id and each answer its headers, logs and counts it, and answers what nobody caught."""

    def __init__(self, app: ASGIApp, *, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = _request_id(scope)
        with logs.about(state):
            spans = tracing.active()
            if spans is None or scope["path"] in _PROBES:
                await self._serve(scope, receive, send)
                return
            parent = spans.parent(Headers(scope=scope).get("traceparent"))
            with spans.span("HTTP", "server", {"memvault.request_id": state["request_id"]}, parent) as opened:
                state["span"], state["traceparent"] = opened, spans.traceparent()
                await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = clock.monotonic()
        state: dict[str, Any] = scope["state"]
        request_id = state["request_id"]
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                # MCP's library answers with members of HTTPStatus, which a line of the log would show as such.
                status = int(message["status"])
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            # Nobody is there to be answered, and nothing failed here: the service has no part in what others break off.
            status = status or _BROKEN_OFF
        except Exception as error:
            # The kind and nothing else: the message of an unknown exception may hold content.
            _log.error("a request failed", extra={"error": type(error).__name__, "request_id": request_id})
            if status:
                raise _Interrupted(type(error).__name__) from None
            detail = "an error of the service; its log has this request id"
            reply = error_reply(MemvaultError.status, MemvaultError.code, detail, request_id)
            await reply(scope, receive, send_with_headers)
        finally:
            self._tell(scope, state, status, clock.monotonic() - began)

    def _tell(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or state.get("route") or _NO_ROUTE
        # One that a client made up may be content, and would be a label of its own.
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        self._metrics.count(route=route, method=method, status=status, seconds=seconds)
        if state.get("span") is not None:
            _describe(state["span"], method, route, status, state.get("tenant"))
        _log.info(
            "request",
            extra={
                "method": method,
                "route": route,
                "status": status,
                "seconds": round(seconds, 4),
                "request_id": state["request_id"],
                "tenant": state.get("tenant"),
            },
        )


def _describe(span: Any, method: str, route: str, status: int, tenant: str | None) -> None:
    """Say in a request's span what it came to: by the route's template, never by its path or query."""
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
    if tenant is not None:
        span.set_attribute("memvault.tenant_id", tenant)
    if status >= 500:
        span.set_attribute("error.type", str(status))


class _Interrupted(Exception):
    """An answer broke off in the middle: the server closes the connection, so that nobody takes it for a whole one."""


class BodyLimit:
    """Refuses a body over the limit, by its announced length at once and by its real one as it arrives."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._limit:
                    raise self._too_large()
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            announced = Headers(scope=scope).get("content-length", "")
            if announced.isdecimal() and int(announced[:20]) > self._limit:
                raise self._too_large()
            await self._app(scope, counted, watched)
        except TooLarge as error:
            if started:
                raise
            reply = error_reply(error.status, error.code, error.detail, scope["state"]["request_id"])
            await reply(scope, receive, send)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"body: has more than {self._limit} bytes (server.body_limit); send less at once")


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else str(clock.new_id())
