"""Brings the schema to this release, one migrator at a time, without waiting long for a lock that others need."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from alembic import command
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from service import clock
from service.errors import ConfigurationError
from service.migrations import scripts
from service.migrations.compatibility import SchemaState as SchemaState
from service.migrations.compatibility import check_schema as check_schema
from service.migrations.compatibility import current as current
from service.migrations.compatibility import schema_state as schema_state
from service.migrations.watching import Watch
from service.settings.migrating import Migration

#: The advisory lock that lets one migrator work at a time; the number is "memv" in ASCII.
_MIGRATION_LOCK: Final = 0x6D656D76
_ASK_EVERY: Final = 0.5
#: Seconds before the second try of a migration that got no lock; doubles with each, up to the longest.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 15.0
_HOLDER: Final = text(
    "SELECT l.pid, coalesce(a.application_name, '') FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = :lock AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
Tell = Callable[[str], None]


def upgrade(
    owner_dsn: str,
    *,
    app_role: str,
    revision: str = "head",
    limits: Migration | None = None,
    tell: Tell = lambda line: None,
) -> str:
    """Migrate the schema and return the revision it is at. A second migrator waits for the first.

    A schema of a newer release that says that this one may serve it is left as it is.

    Raises:
        ConfigurationError: when the owner's database cannot be reached, a newer schema cannot be served, another
            migrator does not end, or a migration gets no lock or takes too long.
    """
    return _Migrator(owner_dsn, app_role, limits or Migration(), tell).run(command.upgrade, revision)


def downgrade(
    owner_dsn: str,
    *,
    app_role: str,
    revision: str,
    limits: Migration | None = None,
    tell: Tell = lambda line: None,
) -> str:
    """Take the schema back to an older revision and return it; what newer ones keep is removed."""
    return _Migrator(owner_dsn, app_role, limits or Migration(), tell).run(command.downgrade, revision)


def look(dsn: str) -> SchemaState:
    """Return where the schema stands, without changing anything."""
    with _connected(dsn) as connection:
        return schema_state(connection)


def served_by(dsn: str, app_role: str) -> int:
    """Return how many sessions of the application role are connected to this database."""
    asked = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = :role")
    with _connected(dsn) as connection:
        return int(connection.execute(asked, {"role": app_role}).scalar_one())


class _Migrator:
    """One run of the migrations over a connection of its own."""

    def __init__(self, dsn: str, app_role: str, limits: Migration, tell: Tell) -> None:
        self._dsn = dsn
        self._app_role = app_role
        self._limits = limits
        self._tell = tell
        self._left: list[str] = []

    def run(self, work: Callable[[Any, str], None], revision: str) -> str:
        """Run the migrations up or down to a revision, alone, and return where the schema is then."""
        with _connected(self._dsn) as connection:
            if self._is_done(connection, revision):
                return current(connection) or "base"
            with self._alone(connection):
                # Another migrator may have done it all meanwhile, or more than this release knows of.
                if not self._is_done(connection, revision):
                    self._migrate(connection, work, revision)
                return current(connection) or "base"

    def _is_done(self, connection: Connection, revision: str) -> bool:
        state = schema_state(connection)
        connection.rollback()
        if state.newer and state.trouble is not None:
            raise ConfigurationError(state.trouble)
        if state.newer and revision != "head":
            raise ConfigurationError(f"{state.note}: migrate it with the newer release")
        return state.newer or (revision == "head" and state.found == state.wanted)

    @contextmanager
    def _alone(self, connection: Connection) -> Iterator[None]:
        """Hold the lock of migrators for the block.

        It is asked for again and again: a session that waited inside a statement would hold a snapshot, which an index
        that is built concurrently waits for.
        """
        deadline, told = clock.monotonic() + self._limits.wait, False
        lock = {"lock": _MIGRATION_LOCK}
        while not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), lock).scalar_one():
            holder = connection.execute(_HOLDER, lock).first()
            connection.rollback()
            who = f"process {holder[0]} ({holder[1] or 'without a name'})" if holder else "one that has just ended"
            if clock.monotonic() >= deadline:
                end = f" or, if it hangs, end it: SELECT pg_terminate_backend({holder[0]})" if holder else ""
                raise ConfigurationError(
                    f"another migrator is at work on this database and did not end within {self._limits.wait:g} s "
                    f"(migration.wait): {who}; nothing was changed. Wait for it{end}"
                )
            if not told:
                self._tell(f"waits for another migrator: {who}")
                told = True
            time.sleep(_ASK_EVERY)
        connection.commit()
        try:
            yield
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), lock)
            connection.commit()

    def _migrate(self, connection: Connection, work: Callable[[Any, str], None], revision: str) -> None:
        limits = self._limits
        connection.execute(text(f"SET lock_timeout = {round(limits.lock_timeout * 1000)}"))
        connection.execute(text(f"SET statement_timeout = {round(limits.statement_timeout * 1000)}"))
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        connection.commit()
        with Watch(self._dsn, pid, self._tell, look_every=limits.lock_timeout / 5) as watch:
            tries, where = 0, current(connection)
            connection.rollback()
            while True:
                try:
                    self._attempt(connection, work, revision, watch)
                    return
                except (DBAPIError, psycopg.Error) as error:
                    connection.rollback()
                    reached = current(connection)
                    connection.rollback()
                    # What was committed on the way is done: the tries are those of one migration.
                    tries, where = (1, reached) if reached != where else (tries + 1, where)
                    self._refuse(error, watch, tries)
                pause = min(_FIRST_PAUSE * 2 ** (tries - 1), _LONGEST_PAUSE, limits.lock_timeout * 4)
                self._tell(f"{self._running}: got no lock ({watch.blocker or 'a short one'}); again in {pause:g} s")
                time.sleep(pause)

    def _attempt(self, connection: Connection, work: Callable[[Any, str], None], revision: str, watch: Watch) -> None:
        at = current(connection)
        connection.rollback()
        up = work is command.upgrade
        order = scripts.order()
        self._left = scripts.after(at) if up else order[: order.index(at) + 1][::-1] if at else []
        config = scripts.config()

        def begin() -> None:
            # A database that is made says nothing of each.
            if self._left and at is not None:
                self._tell(f"{'' if up else 'back from '}{self._running} ({scripts.title(self._left[0])})")
                watch.begin(self._running)

        def applied(is_upgrade: bool, done: str) -> None:
            self._left = self._left[1:]
            target = revision if revision != "head" else scripts.head()
            if (done if is_upgrade else (self._left or ["base"])[0]) != target:
                begin()

        begin()
        config.attributes |= {"connection": connection, "app_role": self._app_role, "applied": applied}
        work(config, revision)
        connection.commit()

    @property
    def _running(self) -> str:
        return f"migration {self._left[0]}" if self._left else "migration"

    def _refuse(self, error: DBAPIError | psycopg.Error, watch: Watch, tries: int) -> None:
        """Return when it is worth trying again; else raise the line that says what was in the way."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        limits = self._limits
        if isinstance(cause, psycopg.errors.QueryCanceled):
            raise ConfigurationError(
                f"{self._running}: a statement took longer than {limits.statement_timeout:g} s "
                "(migration.statement_timeout) and was taken back. Raise it, or migrate at a quieter hour, and run "
                "`memvault migrate` again; the migrations before this one are kept"
            ) from None
        if not isinstance(cause, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
            raise error
        if tries >= limits.lock_attempts:
            blocker = watch.blocker
            end = f" (SELECT pg_terminate_backend({blocker.pid}))" if blocker else ""
            raise ConfigurationError(
                f"{self._running}: waited {tries} times {limits.lock_timeout:g} s (migration.lock_timeout, "
                f"migration.lock_attempts) for {blocker or 'a lock'}; nothing of it was kept. End that session or its "
                f"transaction{end}, then run `memvault migrate` again"
            ) from None


@contextmanager
def _connected(dsn: str) -> Iterator[Connection]:
    name = f"memvault migrate, process {os.getpid()} on {socket.gethostname()}"[:63]
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(dsn, connect_timeout=10, application_name=name),
        poolclass=NullPool,
        hide_parameters=True,
    )
    try:
        connection = engine.connect()
    except Exception as error:
        raise ConfigurationError(f"database.owner_url: the database does not answer ({type(error).__name__})") from None
    with connection:
        yield connection
