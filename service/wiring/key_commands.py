"""What the installation's commands do to its keyring, each with a row in the trail of the service's own tenant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy import text

from service.audit.events import AuditEvent
from service.audit.moves import KeyringKind, KeyringMoved, KeyringRewrapped
from service.audit.trail import Trail
from service.errors import ConfigurationError
from service.scope import SYSTEM_TENANT, installation_caller
from service.settings import Settings
from service.storage.database import Database
from service.wiring.keys import Moved, move_keys, open_keys, rewrap_keys
from service.wiring.reaching import reach_record


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
        ConfigurationError: when there is no keyring in the folder, or no database to move to.
    """
    with _record(settings) as database, ExitStack() as stack:
        moved = move_keys(settings)
        trail, caller = Trail(database, open_keys(settings, stack)[0]), installation_caller(SYSTEM_TENANT)
        with database.transaction(caller.scope) as connection:
            detail = KeyringMoved(
                before=KeyringKind.FOLDER, after=KeyringKind.DATABASE, keys=moved.keys, tombstones=moved.tombstones
            )
            trail.write(connection, caller, AuditEvent.KEYRING_MOVED, detail=detail)
        return moved


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
