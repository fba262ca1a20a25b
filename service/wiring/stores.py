"""Puts together the stores that every action of memories works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.index.interface import Index
from service.memories.serving import Generations
from service.memories.stores import Stores
from service.storage.quarantine import Quarantine

if TYPE_CHECKING:
    from service.wiring import Installation


def open_stores(installation: Installation, index: Index, generations: Generations) -> Stores:
    """Return the stores of an installation, with the index and the models that it works with."""
    return Stores(
        settings=installation.settings,
        database=installation.database,
        keyring=installation.keyring,
        record=installation.record,
        quarantine=Quarantine(installation.keyring, installation.record),
        waiting_holds=installation.waiting_holds,
        subjects=installation.subjects,
        index=index,
        generations=generations,
        trail=installation.trail,
        gate=installation.gate,
        standing=installation.standing,
        tombstones=installation.tombstones,
        quotas=installation.quotas,
        announcer=installation.announcer,
    )
