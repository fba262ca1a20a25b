"""The ASGI entry: the faces of the service in one app."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from service.api import app as http_face
from service.mcp.server import create_mcp
from service.settings import Settings
from service.wiring import Services


def create_app(
    services: Services | Callable[[], Services],
    *,
    settings: Settings | None = None,
    on_failure: Callable[[BaseException], None] | None = None,
) -> FastAPI:
    """Return the app that an ASGI server runs.

    `services` are the services, or what opens them while the socket already answers; then `settings` are needed, and
    `on_failure` hears when they cannot be opened.
    """
    if isinstance(services, Services):
        settings = services.settings
    if settings is None:
        raise TypeError("create_app needs settings when the services are not open yet")
    app = http_face.create_app(services, settings=settings, on_failure=on_failure)
    mcp = create_mcp(app.state.opening.services, settings)
    http_face.add_face(app, mcp.routes, mcp.lifespan)
    return app
