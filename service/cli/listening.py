"""Takes a port before anything is started, and answers probes and metrics on it for a process that serves nothing."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress
from typing import Final

import uvicorn

from service.api.drain import Drain
from service.api.opening import Opening
from service.api.probes import create_probes
from service.cli.heads import bounded_heads
from service.cli.urls import in_url
from service.errors import ConfigurationError, StillStarting
from service.settings import Settings
from service.wiring import Services

#: Seconds that probes under way get to end.
_GRACE_SECONDS: Final = 2


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Take a port, so that one in use is told at once.

    Raises:
        ConfigurationError: when it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"{setting} {port}: cannot listen on {host} ({error.strerror})") from None
    return listener


def answer_probes(settings: Settings, stack: ExitStack, drain: Drain) -> Opening | None:
    """Answer `/healthz`, `/readyz` and `/metrics` on `metrics.port` until the stack closes; None where it is not set.

    What is returned is to be told of the services once they are open.

    Raises:
        ConfigurationError: when the port cannot be had.
    """
    chosen = settings.metrics
    if chosen.port is None:
        return None
    listener = listen(chosen.host, chosen.port, "metrics.port")
    stack.callback(listener.close)
    opening = Opening(_not_yet)
    server = uvicorn.Server(
        uvicorn.Config(
            create_probes(opening, settings, drain),
            http=bounded_heads(settings.server.body_seconds),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    # Not the main thread, so that uvicorn leaves the signals alone.
    thread = threading.Thread(target=server.run, args=([listener],), name="memvault-probes", daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(_GRACE_SECONDS * 2)

    stack.callback(stop)
    port = listener.getsockname()[1]
    with suppress(OSError):
        print(f"memvault worker: probes and metrics on http://{in_url(chosen.host)}:{port}", flush=True)
    return opening


def _not_yet() -> Services:
    raise StillStarting("the worker is starting")
