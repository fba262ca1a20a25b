"""Opens the installation for a command, beside a running service or without one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service import wiring
from service.cli.options import settings_from
from service.errors import ConfigurationError, RecordUnavailable
from service.migrations.keyring import upgrade_keyring
from service.migrations.runner import check_schema, upgrade
from service.settings import Settings

_migration = logging.getLogger("memvault.migration")


def open_migrated(
    settings: Settings, stack: ExitStack, *, make: bool = False, watched: bool = False, restores: bool = False
) -> wiring.Installation:
    """Open the installation: the embedded schema is brought to this release, another's must be there already.

    `make` is for a command that may begin a new installation in the data folder. `watched` is for a process that
    serves: should the embedded Postgres die, it is started again. `restores` is for a restore.

    Raises:
        ConfigurationError: when the database of `database.url` does not answer, what is there cannot be used, a restore
            has not ended, or nothing is there.
    """
    connections = wiring.reach_record(settings, stack, make=make, watched=watched, restores=restores)
    if settings.embedded and connections.owner_dsn is not None:
        upgrade(
            connections.owner_dsn, app_role=settings.database.app_role, limits=settings.migration, tell=_migration.info
        )
        prepare_keyring(settings)
    try:
        installation = wiring.open_installation(settings, connections, stack)
        with installation.database.tenant_blind() as connection:
            if (note := check_schema(connection)) is not None:
                _migration.warning(note)
    except RecordUnavailable as error:
        if settings.embedded:
            raise
        raise ConfigurationError(
            f"database.url: cannot be used ({error.detail}); check host, port, database, user and password"
        ) from None
    return installation


def prepare_keyring(settings: Settings) -> int | None:
    """Bring the keyring's database to this release, where there is one, and return the version of its tables."""
    return None if settings.keyring.url is None else upgrade_keyring(settings.keyring.url.get_secret_value())


@contextmanager
def installation_of(config: Path | None, data_dir: Path | None, *, make: bool = False) -> Iterator[wiring.Installation]:
    """Open the installation for one command, beside a running service or without one; `make` as in `open_migrated`."""
    with ExitStack() as stack:
        yield open_migrated(settings_from(config, data_dir), stack, make=make)
