"""A small app that answers probes and metrics, for a process that serves nothing else: the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service.api import health
from service.api.drain import Drain
from service.api.errors import add_error_handlers
from service.api.metrics import RequestMetrics
from service.api.middleware import BodyLimit, Surroundings
from service.api.opening import Opening
from service.api.quiet import TELEMETRY_OFF
from service.settings import Settings

#: Nothing that is asked here has a body.
_BODY_LIMIT = 1024


def create_probes(opening: Opening, settings: Settings, drain: Drain) -> FastAPI:
    """Return an app with `/healthz`, `/readyz` and `/metrics`, and nothing else."""
    metrics = RequestMetrics(settings.metrics.token)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI(
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=TELEMETRY_OFF,
    )
    app.state.opening = opening
    app.state.drain = drain
    app.state.metrics = metrics
    add_error_handlers(app)
    app.add_middleware(BodyLimit, limit=_BODY_LIMIT)
    app.add_middleware(Surroundings, metrics=metrics)
    app.include_router(health.router)
    return app
