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
from service.memories.stores import Stores
from service.portability.exports import Exports
from service.portability.imports import Imports
from service.portability.settling import Settling
from service.scope import Scope
from service.storage.quarantine import Quarantine
from service.wiring.embedding import open_serving_embedder

if TYPE_CHECKING:
    from service.wiring import Installation


@dataclass(frozen=True, slots=True)
class Portability:
    """What the installation's plane exports and imports with."""

    exports: Exports
    imports: Imports


def open_portability(installation: Installation, stack: ExitStack) -> Portability:
    """Open what exports and imports.

    Raises:
        ConfigurationError: when the database was restored and not brought up to what was erased after it.
    """
    settling = Settling(installation.database, installation.keyring, installation.trail, installation.tombstones, {})
    if settling.pending(installation.erasures.are_held):
        raise ConfigurationError(
            "the database lacks erasures or holds that came after its state, as after a restore: start the service, "
            "which applies them, and run this again"
        )
    stores = Stores(
        settings=installation.settings,
        database=installation.database,
        keyring=installation.keyring,
        record=installation.record,
        quarantine=Quarantine(installation.keyring, installation.record),
        waiting_holds=installation.waiting_holds,
        subjects=installation.subjects,
        # Nothing here searches.
        index=cast(Index, None),
        generations=Generations(Serving(open_serving_embedder(installation, stack), cast(Index, None))),
        trail=installation.trail,
        gate=installation.gate,
        standing=installation.standing,
        tombstones=installation.tombstones,
        quotas=installation.quotas,
        announcer=installation.announcer,
    )
    return Portability(Exports(stores), Imports(stores, _Later()))


class _Later:
    """Leaves the index to the process that serves, which reads the outbox."""

    def apply(self, scope: Scope, entries: Any, *, gone: Any = None) -> None:
        """Do nothing: the outbox rows are there."""

    def catch_up(self) -> None:
        """Do nothing: they are read all the time."""
