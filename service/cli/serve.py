"""`memvault serve`, `worker` and `migrate`: the long-running processes and the schema."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvicorn

from service import wiring
from service.auth.keys import Grant
from service.cli.options import Config, DataDir, Json, open_migrated, settings_from, show
from service.cli.welcome import welcome
from service.engine import refuse_environment
from service.errors import ConfigurationError
from service.main import create_app
from service.migrations.runner import upgrade
from service.policy.table import ROLES
from service.settings import Settings
from service.storage.embedded import EmbeddedPostgresError, make_template

#: Seconds that requests under way get to end after the first Ctrl-C.
_GRACE_SECONDS: Final = 10


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
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(opening.open, settings=settings, on_failure=opening.fail),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                # A proxy's headers would let a client choose its address, and nothing here depends on it.
                proxy_headers=False,
            )
        )
        opening.on_failure(lambda: setattr(server, "should_exit", True))
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises the signal that ended it once more for whoever handled it before. By default that would end
            # the process with the stack still open, and leave Postgres running.
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        server.run(sockets=[listener])
        opening.settle()


class _Opening:
    """Opens everything while the server already answers probes, and keeps what went wrong for the main thread."""

    def __init__(self, settings: Settings, url: str, stack: ExitStack) -> None:
        self._settings = settings
        self._url = url
        self._stack = stack
        self._begun = False
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._stop: Callable[[], None] = lambda: None

    def on_failure(self, stop: Callable[[], None]) -> None:
        """Say how the server is stopped when the services cannot be opened."""
        self._stop = stop

    def open(self) -> wiring.Services:
        """Open the services, print the welcome, and return them."""
        self._begun = True
        settings = self._settings
        try:
            installation = open_migrated(settings, self._stack)
            credentials, new = _first_key(installation, self._url)
            services = wiring.open_services(installation, self._stack)
            if settings.worker_in_process:
                wiring.start_worker(services, self._stack)
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._ended.set()
        print(welcome(self._url, credentials, path=settings.data_dir / "credentials.json", new=new), flush=True)
        return services

    def fail(self, error: BaseException) -> None:
        """Stop the server: the services could not be opened."""
        self._stop()

    def settle(self) -> None:
        """Wait until nothing is being opened any more, then raise what went wrong, if anything did."""
        if self._begun:
            self._ended.wait()
        if self._failure is not None:
            raise self._failure


def worker(config: Config = None, data_dir: DataDir = None) -> None:
    """Run queued work until Ctrl-C. With the embedded stores `serve` does this already."""
    settings = settings_from(config, data_dir)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with ExitStack() as stack:
        services = wiring.open_services(open_migrated(settings, stack), stack)
        wiring.start_worker(services, stack)
        print("memvault worker: waiting for work; Ctrl-C ends it", flush=True)
        stopping.wait()


def migrate(config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Bring the schema of the database to this release, with the owner's credential."""
    settings = settings_from(config, data_dir)
    with ExitStack() as stack:
        connections = wiring.reach_record(settings, stack)
        if connections.owner_dsn is None:
            raise ConfigurationError("database.owner_url: is needed to migrate the database of database.url")
        revision = upgrade(connections.owner_dsn, app_role=settings.database.app_role)
    show({"revision": revision}, as_json=json, text=f"the schema is at {revision}")


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
    """Take the port before anything is started, so that a port in use is told at once."""
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"server.port {port}: cannot listen on {host} ({error.strerror})") from None
    return listener


def _url(settings: Settings, listener: socket.socket) -> str:
    host = settings.server.host
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def _first_key(installation: wiring.Installation, url: str) -> tuple[dict[str, str] | None, bool]:
    """Make the tenant `default` and its admin key on the first start; return the kept credentials and whether new.

    With a bootstrap key nothing is minted and nothing is kept on disk: whoever set the key has it.
    """
    settings = installation.settings
    tenant = installation.tenants.find(wiring.DEFAULT_TENANT)
    first = tenant is None
    tenant = tenant or installation.tenants.create(wiring.DEFAULT_TENANT)
    if settings.bootstrap_key is not None:
        installation.keys.ensure_bootstrap(tenant.id, settings.bootstrap_key.get_secret_value())
        return None, False
    path = settings.data_dir / "credentials.json"
    kept = _read(path)
    if kept is not None:
        if kept["url"] != url:
            kept["url"] = url
            _write(path, kept)
        return kept, False
    if not first and installation.keys.list_for_installation(tenant.id):
        # Keys exist and the file is gone: making another admin key unasked would be a way around a revocation.
        return None, False
    minted = installation.keys.mint_for_installation(tenant.id, Grant(ROLES["admin"], label="first admin key"))
    credentials = {"tenant_id": str(tenant.id), "api_key": minted.secret, "url": url}
    _write(path, credentials)
    return credentials, True


def _read(path: Path) -> dict[str, str] | None:
    try:
        kept: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise ConfigurationError(
            f"{path}: cannot be read; remove it and make a key with `memvault key create`"
        ) from None
    return {str(name): str(value) for name, value in kept.items()}


def _write(path: Path, credentials: dict[str, str]) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(credentials, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
