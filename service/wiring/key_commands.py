"""What the installation's commands do to its keyring, each with a row in the trail of the service's own tenant."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from sqlalchemy import text

from service import clock
from service.audit.events import AuditEvent
from service.audit.moves import KeyringKind, KeyringMoved, KeyringRewrapped
from service.audit.trail import Trail
from service.errors import ConfigurationError, Conflict
from service.scope import SYSTEM_TENANT, installation_caller
from service.settings import Settings
from service.storage.database import Database
from service.wiring.keys import Moved, move_keys, open_keys, rewrap_keys
from service.wiring.reaching import reach_record

#: The sessions of others over the role of the service, which makes and destroys keys.
_USED: Final = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user"
    " AND application_name = 'memvault' AND pid <> pg_backend_pid()"
)
#: Seconds in which the sessions of what has just ended are gone.
_LEAVING: Final = 3.0
_PAUSE: Final = 0.05


def rewrap_keyring(settings: Settings) -> int:
    """Wrap all keys by the present wrapping key and return how many were wrapped by another."""
    with _record(settings) as database, ExitStack() as stack:
        count = rewrap_keys(settings)
        trail, caller = Trail(database, open_keys(settings, stack)[0]), installation_caller(SYSTEM_TENANT)
        with database.transaction(caller.scope) as connection:
            detail = KeyringRewrapped(kind=KeyringKind.DATABASE, keys=count)
            trail.write(connection, caller, AuditEvent.KEYRING_REWRAPPED, detail=detail)
        return count


def move_keyring(settings: Settings) -> Moved:
    """Take the keys and the journal over from the folders in which they are without `keyring.url`. Nothing is removed.

    Raises:
        Conflict: while a service, a worker or another command uses the record, with nothing copied.
        ConfigurationError: when there is no keyring in the folder, or no database to move to.
    """
    with _record(settings) as database, ExitStack() as stack:
        _refuse_used(database)
        moved = move_keys(settings)
        trail, caller = Trail(database, open_keys(settings, stack)[0]), installation_caller(SYSTEM_TENANT)
        with database.transaction(caller.scope) as connection:
            detail = KeyringMoved(
                before=KeyringKind.FOLDER, after=KeyringKind.DATABASE, keys=moved.keys, tombstones=moved.tombstones
            )
            trail.write(connection, caller, AuditEvent.KEYRING_MOVED, detail=detail)
        return moved


def _refuse_used(database: Database) -> None:
    """Return when nobody else uses the record: whoever does writes keys into the folder, which would be left behind."""
    until = clock.monotonic() + _LEAVING
    while True:
        with database.tenant_blind() as connection:
            sessions = int(connection.execute(_USED).scalar_one())
        if sessions == 0:
            return
        if clock.monotonic() > until:
            raise Conflict(
                f"keyring move: {sessions} sessions of services, workers or commands use the record: stop them first, "
                "for the keys that they make and destroy in the folder meanwhile would be left behind"
            )
        time.sleep(_PAUSE)


@contextmanager
def _record(settings: Settings) -> Iterator[Database]:
    """Lend the record, whose trail can be written to: it is looked at before anything is done that it must tell.

    Raises:
        ConfigurationError: when it has no trail yet.
    """
    with ExitStack() as stack:
        connections = reach_record(settings, stack)
        database = Database(connections.app_dsn, prepared_statements=settings.database.prepared_statements)
        stack.callback(database.close)
        database.check_role()
        with database.tenant_blind() as connection:
            if not connection.execute(text("SELECT to_regclass('public.audit') IS NOT NULL")).scalar_one():
                raise ConfigurationError(
                    "database: has no audit trail yet, in which this is told: run `memvault migrate`, then this again"
                )
        yield database
