"""Puts the HTTP face together: routes, doorway, errors, middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio.to_thread
from fastapi import FastAPI
from starlette.routing import BaseRoute

from service.api import docs, health
from service.api.admin import routes_audit, routes_erasures, routes_holds, routes_keys, routes_retention, routes_reviews
from service.api.connectors import routes_identities, routes_tools, routes_webhooks
from service.api.drain import Drain, Leaving
from service.api.errors import add_error_handlers
from service.api.metrics import RequestMetrics
from service.api.middleware import BodyLimit, Surroundings
from service.api.opening import Opening
from service.api.oss import routes_entities as oss_entities
from service.api.oss import routes_memories as oss_memories
from service.api.platform import (
    routes_batch,
    routes_entities,
    routes_events,
    routes_exports,
    routes_feedback,
    routes_memories,
    routes_older,
    routes_ping,
    routes_profiles,
    routes_project,
    routes_summary,
)
from service.api.quiet import TELEMETRY_OFF
from service.api.time_limits import TimeLimits
from service.observability.release import release
from service.settings import Settings
from service.wiring import Services

Lifespan = Callable[[], AbstractAsyncContextManager[None]]

_ROUTERS: Final = (
    health.router,
    docs.router,
    routes_ping.router,
    routes_memories.router,
    routes_batch.router,
    routes_entities.router,
    routes_events.router,
    routes_older.router,
    routes_exports.router,
    routes_exports.own,
    routes_tools.router,
    oss_memories.router,
    oss_entities.router,
    routes_project.router,
    routes_identities.router,
    routes_webhooks.router,
    routes_webhooks.own,
    routes_profiles.router,
    routes_feedback.router,
    routes_summary.router,
    routes_reviews.router,
    routes_keys.router,
    routes_audit.router,
    routes_erasures.router,
    routes_holds.router,
    routes_retention.router,
)
_ABOUT: Final = (
    "Self-hosted memory for AI agents: the dialect of the Mem0 Platform, with tenants, audit, encryption and retention."
)


def create_app(
    services: Services | Callable[[], Services],
    *,
    settings: Settings | None = None,
    on_failure: Callable[[BaseException], None] | None = None,
) -> FastAPI:
    """Return the ASGI app.

    `services` are the services, or what opens them: then it runs in a thread of its own once the server starts, and
    until it returns `/healthz` answers 200 and every other route 503 with `Retry-After`. It needs `settings` then.
    `on_failure` hears, in that thread, that the services could not be opened; the app stays up and says so in
    `/readyz`.
    """
    if isinstance(services, Services):
        settings = services.settings
    if settings is None:
        raise TypeError("create_app needs settings when the services are not open yet")
    opening = Opening(services, on_failure=on_failure)
    metrics = RequestMetrics(settings.metrics.token)
    threads = settings.server.threads

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        opening.start()
        async with AsyncExitStack() as stack:
            for other in app.state.lifespans:
                await stack.enter_async_context(other())
            yield

    app = _App(
        title="Memvault",
        version=release(),
        description=_ABOUT,
        lifespan=lifespan,
        # Paths are exact: the official clients take a redirect for an error.
        redirect_slashes=False,
        # Its pages load scripts from elsewhere; ours is in `docs`.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        telemetry=TELEMETRY_OFF,
    )
    app.state.opening = opening
    app.state.public_url = settings.server.public_url
    app.state.drain = Drain()
    app.state.metrics = metrics
    app.state.lifespans = []
    add_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, limit=settings.server.body_limit)
    limits = settings.server
    app.add_middleware(TimeLimits, body_seconds=limits.body_seconds, seconds=limits.answer_seconds + limits.event_wait)
    app.add_middleware(Surroundings, metrics=metrics)
    app.add_middleware(Leaving, drain=app.state.drain)
    for router in _ROUTERS:
        app.include_router(router)
    return app


def add_face(app: FastAPI, routes: Sequence[BaseRoute], lifespan: Lifespan) -> None:
    """Serve another face beside the routes, inside the same middleware; its lifespan runs within ours."""
    app.router.routes.extend(routes)
    app.state.lifespans.append(lifespan)


class _App(FastAPI):
    """A FastAPI whose OpenAPI document is ours."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        return docs.openapi_document(self)
