"""Connections and transactions: the one doorway to Postgres, which sets the tenant for row-level security."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import ConfigurationError, Forbidden, LegalHold, MemvaultError, RecordBusy, RecordUnavailable
from service.observability import tracing
from service.observability.metrics import POOL_TIMEOUTS
from service.scope import Scope, TenantId
from service.storage import pipelining
from service.storage.conninfo import bounded
from service.storage.pipelining import MAY_WAIT, PipeliningConnection
from service.storage.statements import trace_statements

# In the driver's own form, which passes by what SQLAlchemy does for statements whose rows it is to read.
_SET_TENANT: Final = "SELECT set_config('app.tenant', %(tenant)s, true)"
_UNSAFE_ROLE: Final = text(
    "SELECT r.rolname, r.rolsuper, r.rolbypassrls, EXISTS ("
    "  SELECT 1 FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
    "   AND pg_has_role(current_user, c.relowner, 'MEMBER')) AS owner, EXISTS ("
    # A member of such a role becomes it by SET ROLE.
    "  SELECT 1 FROM pg_roles m WHERE (m.rolsuper OR m.rolbypassrls)"
    "   AND pg_has_role(current_user, m.oid, 'MEMBER')) AS may_become_unbound"
    " FROM pg_roles r WHERE r.rolname = current_user"
)

#: Deadlock, serialization failure, and a wait for a lock that had a bound.
_GAVE_IN: Final = frozenset({"40P01", "40001", "55P03"})
#: Insufficient rights and a server that only reads.
_REFUSED: Final = frozenset({"42501", "25006"})
#: What the triggers of legal holds raise: with the hold's name, or because of who asks, as their whole message.
_HELD: Final = "MH409"
_NOT_BY_THEM: Final = "MH403"


class Database:
    """A bounded pool of connections as one role. Transactions are short: nothing waits for the world inside one."""

    def __init__(self, dsn: str, *, pool_size: int = 20, prepared_statements: bool = True) -> None:
        try:
            self._dsn = make_conninfo(bounded(dsn), connect_timeout="5", application_name="memvault")
        except psycopg.ProgrammingError:
            raise ConfigurationError("database.url: Postgres does not understand this URL") from None
        self._threshold = 2 if prepared_statements else None
        # Statement parameters are memory text: they must not get into an exception and from there into a log.
        self._engine: Engine = create_engine(
            f"postgresql+{pipelining.NAME}://",
            creator=self._connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=10,
            hide_parameters=True,
        )
        if tracing.active() is not None:
            trace_statements(self._engine)

    @property
    def dsn(self) -> str:
        """The connection string, for the queue's own connections. It holds a password: never log it."""
        return self._dsn

    @contextmanager
    def transaction(self, scope: Scope) -> Iterator[Connection]:
        """One transaction that sees and writes the rows of the scope's tenant only; committed when the block ends.

        Raises:
            LegalHold: when it would delete or rewrite what a hold covers and did not ask before, with nothing done.
            RecordUnavailable: when Postgres is away or refuses, with nothing done.
            RecordBusy: when it gave in to another transaction, with nothing done; once more is likely to work.
        """
        with self._transaction(scope.tenant_id) as connection:
            yield connection

    @contextmanager
    def tenant_blind(self) -> Iterator[Connection]:
        """One transaction without a tenant: it sees the tenant-blind tables and no row of any other."""
        with self._transaction(None) as connection:
            yield connection

    @contextmanager
    def _transaction(self, tenant_id: TenantId | None) -> Iterator[Connection]:
        try:
            connection = self._engine.connect()
        except (DBAPIError, PoolTimeout) as error:
            if isinstance(error, PoolTimeout):
                POOL_TIMEOUTS.inc()
            raise RecordUnavailable("Postgres, the record, does not answer; try again") from without_values(error)
        with connection:
            try:
                with connection.begin():
                    if tenant_id is not None:
                        connection.exec_driver_sql(_SET_TENANT, {"tenant": str(tenant_id)}, execution_options=MAY_WAIT)
                    yield connection
            except DBAPIError as error:
                told = _told(error)
                if told is None:
                    raise
                raise told from without_values(error)

    def check_role(self) -> None:
        """Refuse a role that row-level security does not bind.

        Raises:
            ConfigurationError: for a superuser, a role with BYPASSRLS or the owner of the tables.
        """
        with self.tenant_blind() as connection:
            role = connection.execute(_UNSAFE_ROLE).one()
        fix = "set database.url to the application role that `memvault migrate` grants to"
        if role.rolsuper:
            raise ConfigurationError(f"database.url: the role {role.rolname} is a superuser; {fix}")
        if role.rolbypassrls:
            raise ConfigurationError(f"database.url: the role {role.rolname} has BYPASSRLS; {fix}")
        if role.owner:
            raise ConfigurationError(f"database.url: the role {role.rolname} owns the tables; {fix}")
        if role.may_become_unbound:
            raise ConfigurationError(
                f"database.url: the role {role.rolname} is a member of a superuser or of a role with BYPASSRLS; {fix}"
            )

    def ping(self) -> None:
        """Raise RecordUnavailable unless Postgres answers."""
        with self.tenant_blind() as connection:
            connection.execute(text("SELECT 1"))

    def pool(self) -> dict[str, int]:
        """Return how many connections are in use, and how many there may be."""
        pool: Any = self._engine.pool
        return {"in_use": pool.checkedout(), "most": pool.size()}

    def close(self) -> None:
        """Close the idle connections; those in use close when they come back."""
        self._engine.dispose()

    def _connect(self) -> PipeliningConnection:
        connection = PipeliningConnection.connect(self._dsn, autocommit=True, prepare_threshold=self._threshold)
        # Elsewhere the first and the last hours of the calendar are of years that cannot be read. Not by an option of
        # the URL, which poolers refuse.
        if connection.info.parameter_status("TimeZone") != "UTC":
            connection.execute("SET TIME ZONE 'UTC'")
        return connection


def _told(error: DBAPIError) -> MemvaultError | None:
    """Return what to tell of an error whose reason is outside the statement; None for any other, which is a defect.

    Outside are a connection that was lost, another transaction, rights, a server that is read-only, shutting down, out
    of disk or of resources. Not the mere class OperationalError: psycopg raises it for too many parameters as well.
    """
    state = getattr(error.orig, "sqlstate", None) or ""
    if isinstance(error.orig, psycopg.Error) and state in (_HELD, _NOT_BY_THEM):
        message = error.orig.diag.message_primary or ""
        return LegalHold([message]) if state == _HELD else Forbidden(message)
    if state in _GAVE_IN:
        return RecordBusy("two transactions of the record were in each other's way; nothing was done, try again")
    if error.connection_invalidated or state[:2] in ("08", "57"):
        return RecordUnavailable("Postgres, the record, does not answer; try again")
    if state in _REFUSED or state[:2] in ("53", "58"):
        return RecordUnavailable("Postgres, the record, refused the work; nothing was done")
    return None


def without_values(error: Exception) -> Exception:
    """Return a cause that names the SQLSTATE only: Postgres puts row values into the DETAIL of its errors."""
    origin = getattr(error, "orig", None)
    state = getattr(origin, "sqlstate", None) or type(origin or error).__name__
    return RuntimeError(f"SQLSTATE {state}")
