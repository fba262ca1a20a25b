"""Puts erasures together: the half that asks, which needs no index, and the half that does the work."""

from __future__ import annotations

from functools import partial

from service.audit.assembly import open_signer
from service.audit.trail import Trail
from service.holds.minimum import Minimum
from service.holds.waiting import WaitingHolds
from service.memories.changing import ModelChange
from service.memories.entities import Entities
from service.memories.indexing import Indexing
from service.memories.stores import Stores
from service.policy.gate import Gate
from service.queue.tasks import Queue
from service.retention.connectors import ConnectorRows
from service.retention.erasures import Erasures
from service.retention.leftovers import Leftovers
from service.retention.obstacles import Obstacles
from service.retention.physical import PhysicalPass
from service.retention.work import ErasureWork
from service.storage.database import Database
from service.storage.keyring import Keyring
from service.storage.record import Record
from service.storage.tombstones import Tombstones
from service.tenants.actions import Tenants
from service.tenants.subjects import Subjects


def open_erasures(
    database: Database,
    keyring: Keyring,
    record: Record,
    waiting_holds: WaitingHolds,
    subjects: Subjects,
    trail: Trail,
    gate: Gate,
    queue: Queue,
    tombstones: Tombstones,
) -> Erasures:
    """Return what erasures are asked for with."""
    obstacles = Obstacles(ConnectorRows(keyring, record), record, Minimum(keyring), waiting_holds)
    return Erasures(database, keyring, subjects, trail, gate, queue, tombstones, obstacles)


def open_erasing(
    stores: Stores,
    indexing: Indexing,
    entities: Entities,
    erasures: Erasures,
    change: ModelChange,
    tenants: Tenants,
    *,
    maintenance_dsn: str | None,
) -> ErasureWork:
    """Return what carries erasures out, for the process that has the index."""
    connectors = ConnectorRows(stores.keyring, stores.record)

    timeout = stores.settings.erasure.lock_timeout
    physical = PhysicalPass(
        indexing, stores.index, change, tenants.living_ids, maintenance_dsn, stores.keyring, lock_timeout=timeout
    )
    return ErasureWork(
        stores,
        indexing,
        entities,
        erasures,
        connectors,
        Obstacles(connectors, stores.record, Minimum(stores.keyring), stores.waiting_holds),
        physical,
        Leftovers(stores, connectors, change),
        partial(open_signer, stores.settings),
    )
