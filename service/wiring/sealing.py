"""Puts together what seals the audit trail, and what notices a database that is behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

from service.audit.assembly import Sealing, open_sealing
from service.audit.continuity import Continuity
from service.errors import Unavailable
from service.queue.tasks import Handler
from service.scope import SYSTEM_TENANT, TenantId
from service.storage.database import Database
from service.ticking import Ticker

if TYPE_CHECKING:
    from service.wiring import Installation, Services

_log: Final = logging.getLogger("memvault.audit")
#: Seconds between two looks at whether the database is still the same; each is one small question.
_LOOK_EVERY: Final = 1.0
#: Only people can mend it.
_RETRY_AFTER: Final = 30


def seal_trail(installation: Installation) -> Sealing:
    """Return what seals the audit trail; nothing runs yet.

    Raises:
        ConfigurationError: when the signing key is missing, cannot be used or lies where the database does.
    """
    tenants = partial(audited_tenants, installation)
    return open_sealing(installation.settings, installation.database, installation.trail, tenants)


def audited_tenants(installation: Installation) -> list[TenantId]:
    """Return all tenants that have a trail, the service's own first."""
    return [SYSTEM_TENANT, *(tenant.id for tenant in installation.tenants.list())]


def trail_jobs(installation: Installation, sealing: Sealing) -> dict[str, tuple[str, Callable[[int], None]]]:
    """Return the periodic work on the trail: a checkpoint over every tenant, by one worker of all, and the daily drop
    of old parts, where a retention is set and there is a role that may drop.
    """

    def checkpoint(timestamp: int) -> None:
        sealing.keeper.checkpoint()

    jobs: dict[str, tuple[str, Callable[[int], None]]] = {"checkpoint": ("*/5 * * * *", checkpoint)}
    keep_days, dsn = installation.settings.audit.retention_days, installation.connections.maintenance_dsn
    if keep_days is None:
        return jobs
    if dsn is None:
        _log.warning("audit.retention_days is set and database.maintenance_url is not: no part of the trail is dropped")
        return jobs

    def drop(timestamp: int) -> None:
        maintenance = Database(dsn, pool_size=2)
        try:
            sealing.old_parts.drop(audited_tenants(installation), keep_days, maintenance)
        finally:
            maintenance.close()

    return jobs | {"drop_old_audit": ("41 3 * * *", drop)}


def open_continuity(database: Database, stack: ExitStack, *, watched: bool) -> Continuity:
    """Return what notices that the database was replaced, asking it all the time until the stack closes if `watched`.

    Raises:
        RecordUnavailable: when the database does not answer.
    """
    continuity = Continuity(database)
    if watched:
        continuity.look()
        ticker = Ticker("memvault-continuity", _LOOK_EVERY, continuity.look)
        ticker.start()
        stack.callback(ticker.stop)
    return continuity


def check_database(services: Services) -> None:
    """Return when the database is the one that was served and signed before, as far as this process knows.

    Raises:
        Unavailable: when it is not: what was erased, revoked and held since may be undone in it, so that nothing is to
            be done on it.
    """
    if services.continuity.problem is not None or any(keeper.changed for keeper in services.keepers):
        raise Unavailable(
            "the database is not the one that was signed over; nothing is served until the service is started again or"
            " that is cleared up",
            retry_after=_RETRY_AFTER,
        )


def sealing_state(services: Services) -> tuple[str, str | None, bool]:
    """Return the state of the trail for `/readyz`, what is wrong with it, and whether nothing may be served so."""
    if services.continuity.problem is not None:
        return "failed", services.continuity.problem, True
    if not services.keepers:
        return "off", "the process that runs the worker seals the trail", False
    keeper = services.keepers[0]
    # Places for checkpoints may be late; a database that is not the one that was signed over must not be served.
    return (*keeper.state(), keeper.changed)


def held_back(services: Services, work: Handler) -> Handler:
    """Return work that raises Unavailable, to be done later, while the database is not the one that it was."""

    @wraps(work)
    def run(*arguments: Any, **named: Any) -> None:
        # Anew before each job: a connection that was lost with the old database is soon one to the new.
        services.continuity.look()
        check_database(services)
        work(*arguments, **named)

    return run
