"""Puts together what the command line exports and imports with: the record and the model, and no index.

The index belongs to the process that serves: what is imported reaches it through the outbox.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from service.errors import ConfigurationError
from service.index.interface import Index
from service.memories.serving import Generations, Serving
from service.portability.exports import Exports
from service.portability.imports import Imports
from service.portability.settling import Settling
from service.scope import Scope, TenantId
from service.wiring.embedding import open_serving_embedder
from service.wiring.stores import open_stores

if TYPE_CHECKING:
    from service.wiring import Installation


@dataclass(frozen=True, slots=True)
class Portability:
    """What the installation's plane exports and imports with."""

    exports: Exports
    imports: Imports


def open_portability(installation: Installation, stack: ExitStack, tenant_id: TenantId) -> Portability:
    """Open what exports and imports for a tenant.

    Raises:
        ConfigurationError: when the database was not brought up to what was erased and held in the tenant.
    """
    settling = Settling(installation.database, installation.keyring, installation.trail, installation.tombstones, {})
    erasures = installation.erasures
    if lacking := settling.pending(tenant_id, erasures.are_held, erasures.are_leaving):
        raise ConfigurationError(
            f"the database lacks {lacking} erasures, holds or revoked keys of this tenant that the journal has, as"
            " after a restore or a commit that failed: start the service (one that runs, again), which applies them,"
            " and run this again"
        )
    # Nothing here searches.
    index = cast(Index, None)
    generations = Generations(Serving(open_serving_embedder(installation, stack), index))
    stores = open_stores(installation, index, generations)
    return Portability(Exports(stores), Imports(stores, _Later()))


class _Later:
    """Leaves the index to the process that serves, which reads the outbox."""

    def apply(self, scope: Scope, entries: Any, *, gone: Any = None) -> None:
        """Do nothing: the outbox rows are there."""

    def catch_up(self) -> None:
        """Do nothing: they are read all the time."""
