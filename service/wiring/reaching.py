"""How the record is reached: the database that the settings name, or the embedded Postgres, which is started."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pydantic import SecretStr

from service.errors import ConfigurationError
from service.portability.unfinished import refuse_unfinished
from service.settings import Settings
from service.storage.conninfo import bounded
from service.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError, Watch, ensure_database
from service.storage.embedded.bootstrap import DATABASE


@dataclass(frozen=True, slots=True)
class Connections:
    """How to reach the record: as the application role, and as the owner, the maintenance role and one that reads past
    row-level security where this may.
    """

    app_dsn: str
    owner_dsn: str | None
    maintenance_dsn: str | None = None
    backup_dsn: str | None = None


def reach_record(
    settings: Settings, stack: ExitStack, *, make: bool = False, watched: bool = False, restores: bool = False
) -> Connections:
    """Return how to reach the record, starting the embedded Postgres (until the stack closes) where it is used.

    `make` is for what may begin a new installation in the data folder. `watched` is for a process that serves: should
    Postgres die, it is started again. `restores` is for a restore: nobody else is let in before one has ended.

    Raises:
        ConfigurationError: for a URL that is none, when the data folder holds no installation and none may be made, or
            a restore that was cut short, and when the embedded Postgres cannot be started; in one line.
    """
    if not restores:
        refuse_unfinished(settings.data_dir)
    named = settings.database
    if named.url is not None:
        return Connections(
            _bounded("url", named.url),
            _bounded("owner_url", named.owner_url) if named.owner_url else None,
            _bounded("maintenance_url", named.maintenance_url) if named.maintenance_url else None,
            _bounded("backup_url", named.backup_url) if named.backup_url else None,
        )
    folder = settings.data_dir / "postgres"
    if not make:
        _refuse_nothing(settings.data_dir, folder)
    try:
        prepare_data_dir(settings.data_dir)
        postgres = EmbeddedPostgres(folder, template=settings.database.embedded_template)
        server = postgres.start()
        stack.callback(postgres.stop)
        credentials = ensure_database(server, folder=folder)
        if watched:
            watch = Watch(postgres)
            watch.start()
            stack.callback(watch.stop)
    except EmbeddedPostgresError as error:
        raise ConfigurationError(f"embedded Postgres: {error}") from None
    return Connections(
        credentials.app_dsn, credentials.owner_dsn, credentials.maintenance_dsn, server.superuser_dsn(DATABASE)
    )


def _bounded(name: str, url: SecretStr) -> str:
    try:
        return bounded(url.get_secret_value())
    except psycopg.ProgrammingError:
        raise ConfigurationError(f"database.{name}: Postgres does not understand this URL") from None


def _refuse_nothing(data_dir: Path, folder: Path) -> None:
    """Return when there is a database: what was pointed at the wrong place must not do its work on an empty one."""
    try:
        found = folder.is_dir()
    except OSError as error:
        raise ConfigurationError(f"data_dir {data_dir}: cannot be entered ({error.strerror})") from None
    if not found:
        raise ConfigurationError(
            f"data_dir {data_dir}: holds no installation; name the right folder (--data-dir, MEMVAULT_DATA_DIR), or"
            " make one there with `memvault serve`"
        )


def prepare_data_dir(folder: Path) -> None:
    """Make the data folder. Others may pass through it (Postgres runs as a user of its own under root) and not read it.

    Raises:
        ConfigurationError: when it cannot be made or used.
    """
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigurationError(f"data_dir {folder}: is not writable by this user")
    except OSError as error:
        raise ConfigurationError(f"data_dir {folder}: cannot be made ({error.strerror})") from None
