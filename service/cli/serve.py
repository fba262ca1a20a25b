"""`memvault serve`, `worker` and `migrate`: the long-running processes and the schema."""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from service import wiring
from service.api.drain import Drain
from service.cli.credentials import FILE, first_key
from service.cli.ending import Asked, DrainingServer, end
from service.cli.heads import bounded_heads
from service.cli.installation import open_migrated
from service.cli.listening import answer_probes, listen
from service.cli.options import Config, DataDir, Json, settings_from, show
from service.cli.urls import in_url
from service.cli.welcome import welcome
from service.engine import refuse_environment
from service.errors import ConfigurationError, StillStarting
from service.index.interface import IndexLocked
from service.main import create_app
from service.settings import Settings
from service.storage.embedded import EmbeddedPostgresError, make_template


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. Default: 8080")] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Serve the API; all that it needs runs in this one process unless the settings name other stores."""
    settings = settings_from(config, data_dir, {"server": {"host": host, "port": port}})
    # What can be told from the settings alone is told before anything is started.
    refuse_environment(os.environ, wiring.llm_settings(settings.llm))
    if settings.embedded:
        wiring.prepare_data_dir(settings.data_dir)
    with ExitStack() as stack:
        # The port first: that it is in use is told at once, and probes are answered while the rest is being opened.
        listener = _listen(settings)
        stack.callback(listener.close)
        opening = _Opening(settings, _url(settings, listener), stack)
        app = create_app(opening.open, settings=settings, on_failure=opening.fail)
        server = DrainingServer(
            uvicorn.Config(
                app,
                http=bounded_heads(settings.server.body_seconds),
                log_config=None,
                access_log=False,
                server_header=False,
                # It takes whole seconds by its type, and any number by what it does with it.
                timeout_graceful_shutdown=settings.server.grace_seconds,  # type: ignore[arg-type]
                # A proxy's headers would let a client choose its address, and nothing here depends on it.
                proxy_headers=False,
            ),
            app.state.drain,
            is_open=lambda: app.state.opening.find() is not None,
            seconds=settings.server.drain_seconds,
        )
        opening.on_failure(lambda: setattr(server, "should_exit", True))
        try:
            server.run(sockets=[listener])
            # From here on a signal hurries the worker, which is stopped next.
            server.asked.then(opening.hurry)
        finally:
            opening.settle()
    end(left=app.state.drain.cut_off + opening.left)


class _Opening:
    """Opens everything while the server already answers probes, and keeps what went wrong for the main thread."""

    def __init__(self, settings: Settings, url: str, stack: ExitStack) -> None:
        self._settings = settings
        self._url = url
        self._stack = stack
        self._lock = threading.Lock()
        self._begun = False
        self._settled = False
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._stop: Callable[[], None] = lambda: None
        self._worker: wiring.Workers | None = None

    @property
    def left(self) -> int:
        """How many jobs still ran when the worker was stopped."""
        return self._worker.left if self._worker else 0

    def hurry(self) -> None:
        """Give jobs that run no more time to end."""
        if self._worker:
            self._worker.hurry()

    def on_failure(self, stop: Callable[[], None]) -> None:
        """Say how the server is stopped when the services cannot be opened."""
        self._stop = stop

    def open(self) -> wiring.Services:
        """Open the services, print the welcome, and return them."""
        with self._lock:
            if self._settled:
                # The server was stopped before this thread came to run: what is opened now would never be closed.
                raise StillStarting("the server was stopped before it was up")
            self._begun = True
        try:
            return self._open()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._ended.set()

    def _open(self) -> wiring.Services:
        settings = self._settings
        wiring.open_tracing(settings, self._stack)
        installation = open_migrated(settings, self._stack, make=True, watched=True)
        # The index first: its folder has one owner, and a start that is refused it must leave no trace of itself.
        services = wiring.open_services(installation, self._stack)
        known = first_key(installation, self._url)
        if settings.worker_in_process:
            self._worker = wiring.start_worker(services, self._stack)
        # What is there now stays. Looking for garbage among it takes 0.2 s each time, in which nobody is answered.
        gc.collect()
        gc.freeze()
        if not self._settled:
            # Nobody may be reading any more, which is no reason not to serve.
            with suppress(OSError):
                print(welcome(self._url, known, path=settings.data_dir / FILE), flush=True)
        return services

    def fail(self, error: BaseException) -> None:
        """Stop the server: the services could not be opened."""
        self._stop()

    def settle(self) -> None:
        """Wait until nothing is being opened any more, then raise what went wrong, if anything did."""
        with self._lock:
            self._settled = True
        if self._begun:
            self._ended.wait()
        if self._failure is not None:
            raise self._failure


def worker(config: Config = None, data_dir: DataDir = None) -> None:
    """Run queued work until Ctrl-C. With the embedded stores `serve` does this already."""
    settings = settings_from(config, data_dir)
    drain = Drain()
    asked = Asked(drain.begin, lambda: None)
    with ExitStack() as stack:
        probes = answer_probes(settings, stack, drain)
        wiring.open_tracing(settings, stack)
        installation = open_migrated(settings, stack)
        try:
            services = wiring.open_services(installation, stack, faces=False)
        except IndexLocked as error:
            raise ConfigurationError(
                "worker: the process that serves has the index and runs the queue itself (queue.in_process); no worker "
                f"is needed beside it. {error.detail}"
            ) from None
        running = wiring.start_worker(services, stack)
        asked.then(running.hurry)
        if probes is not None:
            probes.opened(services)
        # As with a service: that nobody reads is no reason not to work.
        with suppress(OSError):
            print("memvault worker: waiting for work; Ctrl-C ends it", flush=True)
        asked.wait()
    end(left=running.left)


def postgres_template(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not exist yet.")], json: Json = False
) -> None:
    """Make a cluster for `database.embedded_template`: for images that run under a user without a name."""
    try:
        make_template(folder)
    except EmbeddedPostgresError as error:
        raise ConfigurationError(f"postgres-template: {error}") from None
    show({"template": str(folder)}, as_json=json, text=f"the template is in {folder}")


def _listen(settings: Settings) -> socket.socket:
    return listen(settings.server.host, settings.server.port, "server.port")


def _url(settings: Settings, listener: socket.socket) -> str:
    host = settings.server.host
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else in_url(host)
    return f"http://{shown}:{listener.getsockname()[1]}"
