"""Connections to the database that is the keyring's own: short transactions, and the checks before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import ConfigurationError, KeyringUnavailable
from service.storage.conninfo import bounded
from service.storage.database import without_values
from service.storage.files import LeftRows

#: The version of the tables that this release works with; `memvault migrate` makes them.
VERSION: Final = 1
_POOL: Final = 8
_IS_RECORD: Final = text("SELECT to_regclass('public.tenants') IS NOT NULL")
_HAS_TABLES: Final = text("SELECT to_regclass('public.keyring_schema') IS NOT NULL")
_VERSION: Final = text("SELECT version FROM keyring_schema")
#: What a transaction here says is done must be on the disk, whatever the role's default is.
_DURABLE: Final = text(
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)
_REWRITE: Final = ("SET lock_timeout = '5s'", "VACUUM (FULL, VERBOSE) keys")


class KeyringDatabase:
    """A small pool of connections to the keyring's database."""

    def __init__(self, url: str) -> None:
        try:
            self._dsn = make_conninfo(bounded(url), connect_timeout="3", application_name="memvault-keyring")
            parts = conninfo_to_dict(self._dsn)
        except psycopg.ProgrammingError:
            raise ConfigurationError("keyring.url: Postgres does not understand this URL") from None
        #: For messages: no user and no password.
        self.place = f"the database {parts.get('dbname', '')} on {parts.get('host', 'this machine')} (keyring.url)"
        self._engine: Engine = create_engine(
            "postgresql+psycopg://",
            creator=self.connect,
            pool_size=_POOL,
            max_overflow=0,
            pool_timeout=5,
            # Calls are rare: a connection that was cut meanwhile is not to fail one.
            pool_pre_ping=True,
            hide_parameters=True,
        )

    def connect(self) -> psycopg.Connection[Any]:
        """Return a connection outside the pool."""
        return psycopg.connect(self._dsn)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction.

        Raises:
            KeyringUnavailable: when the database is away or refuses, with nothing done.
        """
        try:
            connection = self._engine.connect()
        except (DBAPIError, PoolTimeout) as error:
            raise KeyringUnavailable(f"the keyring, {self.place}, does not answer; try again") from without_values(
                error
            )
        with connection:
            try:
                with connection.begin():
                    yield connection
            except DBAPIError as error:
                raise KeyringUnavailable(
                    f"the keyring, {self.place}, refused the work; nothing was done"
                ) from without_values(error)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that is on the disk when the block ends; else as `reading`."""
        with self.reading() as connection:
            connection.execute(_DURABLE)
            yield connection

    def check(self) -> None:
        """Refuse a database that is the record's, and tables that are missing or another release's.

        Raises:
            ConfigurationError: with what to do.
        """
        try:
            with self.reading() as connection:
                refuse_record(connection)
                found = connection.execute(_VERSION).scalar() if connection.execute(_HAS_TABLES).scalar_one() else None
        except KeyringUnavailable as error:
            raise ConfigurationError(
                f"keyring.url: cannot be used ({error.detail}); check host, port, database, user and password"
            ) from None
        if found is None:
            raise ConfigurationError("keyring.url: the database has no tables yet: run `memvault migrate`")
        if found < VERSION:
            raise ConfigurationError(
                f"keyring.url: its tables are at {found}, this release needs {VERSION}: run `memvault migrate`"
            )
        if found > VERSION:
            raise ConfigurationError(
                f"keyring.url: its tables are at {found}, which is newer than this release: install a newer Memvault"
            )

    def ping(self) -> None:
        """Raise KeyringUnavailable unless the database answers."""
        with self.reading() as connection:
            connection.execute(text("SELECT 1"))

    def rewrite(self) -> None:
        """Write the table of keys anew, so that what it held of destroyed and rewrapped keys is in no file of it.

        Raises:
            KeyringUnavailable: when the table is in use for too long, or the database is away.
        """
        try:
            with self.connect() as connection:
                connection.autocommit = True
                left = LeftRows()
                connection.add_notice_handler(left)
                for statement in _REWRITE:
                    connection.execute(statement)
        except psycopg.Error as error:
            state = error.sqlstate or type(error).__name__
            raise KeyringUnavailable(f"the keyring's table cannot be rewritten now (SQLSTATE {state})") from None
        if left.rows:
            raise KeyringUnavailable("a transaction elsewhere can still see the keys that were destroyed; try again")

    def close(self) -> None:
        """Close the idle connections."""
        self._engine.dispose()


def refuse_record(connection: Connection) -> None:
    """Return unless this is the record's database.

    Raises:
        ConfigurationError: when it is.
    """
    if connection.execute(_IS_RECORD).scalar_one():
        raise ConfigurationError(
            "keyring.url: names the database of the record; the keys need a database of their own, with backups of "
            "their own, or every backup of the data holds the keys to it"
        )
