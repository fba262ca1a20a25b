"""Looks every few seconds at how everything stands, so that a scrape of the metrics asks nothing and never fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from service import clock
from service.audit.ledger import Ledger as Checkpoints
from service.errors import MemvaultError
from service.index.interface import Index
from service.observability.figures import Figures, Values
from service.queue import tasks as queue
from service.retention import run_ledger
from service.retention.ledger import Ledger as Erasures
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database
from service.storage.outbox import Outbox
from service.storage.quarantine import Quarantine
from service.storage.tasks import Tasks, TaskState
from service.tenants.actions import Tenant, Tenants
from service.tenants.usage import stored

#: The task that `memvault audit verify` leaves its outcome in.
VERIFIED: Final = "audit_verify"
#: Looks that may fail before what was seen last is not shown any more.
_LOOKS: Final = 3
#: A question that takes longer than this is not worth its answer.
_PATIENCE: Final = text("SET LOCAL statement_timeout = '5s'")
_RECORD: Final = "memvault-survey-record"
_PARTS: Final = "memvault-survey-parts"
_INDEX: Final = "memvault-survey-index"
_log: Final = logging.getLogger("memvault.metrics")


@dataclass(slots=True)
class _Round:
    """What was seen of the tenants in one round through them."""

    memories: int = 0
    drift: int = 0
    quarantined: int = 0
    oldest_run: datetime | None = None


class Survey:
    """Threads, one for each store, so that none of them waits for the other. What fails is not shown.

    Where this process `works` it also goes round the tenants, so many at each look: what is behind row-level security
    is seen tenant by tenant only. `parts` tells readiness, `llm` whether its last call was answered (None: off).
    """

    def __init__(
        self,
        database: Database,
        tenants: Tenants,
        outbox: Outbox,
        tasks: Tasks,
        quarantine: Quarantine,
        index: Index,
        figures: Figures,
        *,
        parts: Callable[[], Values],
        llm: Callable[[], bool | None],
        works: Callable[[], bool],
        interval: float,
        tenants_a_look: int,
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._outbox = outbox
        self._tasks = tasks
        self._quarantine = quarantine
        self._index = index
        self._figures = figures
        self._checkpoints = Checkpoints(database)
        self._parts = parts
        self._llm = llm
        self._works = works
        self._interval = interval
        self._tenants_a_look = tenants_a_look
        self._waiting: list[Tenant] = []
        self._round: _Round | None = None
        self._round_began = 0.0
        self._unsealed: tuple[UUID, int] | None = None
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(self.look_at_record,), name=_RECORD, daemon=True),
            threading.Thread(target=self._watch, args=(self.look_at_index,), name=_INDEX, daemon=True),
            threading.Thread(target=self._watch, args=(self.look_at_parts,), name=_PARTS, daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, after the questions that are under way."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(10)
        self._figures.forget()

    def look_at_record(self) -> None:
        """Look once at Postgres and at what it tells of everything else."""
        if not self._look("record", self._database.ping):
            return
        for question in (self._queue, self._outbox_, self._erasures, self._sealing, self._verified, self._statuses):
            self._ask(question)
        self._look_at_unsealed()
        if self._works():
            self._go_round(self._tenants_a_look)

    def look_at_index(self) -> None:
        """Look once at the index."""
        self._look("index", lambda: self._set("memvault_index_points", {(): self._index.count()}))

    def look_at_parts(self) -> None:
        """Look once at what readiness tells, and at how the last call of the LLM went."""
        up = self._llm()
        if up is not None:
            self._figures.set("memvault_store_up", {("llm",): float(up)}, good_for=_LOOKS * self._interval, by="llm")
        self._set("memvault_part_up", self._parts())

    def _watch(self, look: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                look()
            except Exception as error:
                _log.error("a look at the stores failed", extra={"error": type(error).__name__}, exc_info=error)
            self._stopping.wait(self._interval)

    def _look(self, store: str, question: Callable[[], object]) -> bool:
        """Ask whether a store answers, and say so. While it says nothing at all it counts as away after a while."""
        began, up = clock.monotonic(), True
        try:
            question()
        except MemvaultError:
            up = False
        seconds = clock.monotonic() - began
        good_for = self._interval + 10
        self._figures.set("memvault_store_up", {(store,): float(up)}, good_for=good_for, by=store, zero_after=True)
        if up:
            latency: Values = {(store,): seconds}
            self._figures.set("memvault_store_latency_seconds", latency, good_for=good_for, by=store)
        return up

    def _ask(self, question: Callable[[Connection], None]) -> None:
        try:
            with self._database.tenant_blind() as connection:
                connection.execute(_PATIENCE)
                question(connection)
        except MemvaultError as error:
            _log.warning("a figure could not be looked at", extra={"error": error.code})

    def _set(self, name: str, values: Values, *, looks: float = _LOOKS) -> None:
        self._figures.set(name, values, good_for=looks * self._interval + 10)

    def _queue(self, connection: Connection) -> None:
        found = queue.standing(connection)
        self._set("memvault_queue_jobs", {(one.task, one.state): one.count for one in found})
        ages: Values = {(one.task,): _age(one.oldest) for one in found if one.state == "due"}
        self._set("memvault_queue_oldest_seconds", ages)

    def _outbox_(self, connection: Connection) -> None:
        count, oldest = self._outbox.standing(connection)
        self._set("memvault_outbox_rows", {(): count})
        self._set("memvault_outbox_oldest_seconds", {(): _age(oldest)})

    def _erasures(self, connection: Connection) -> None:
        due, planned, oldest = Erasures.standing(connection)
        self._set("memvault_erasures_open", {("due",): due, ("scheduled",): planned})
        self._set("memvault_erasures_overdue_seconds", {(): _age(oldest)})

    def _sealing(self, connection: Connection) -> None:
        self._unsealed = self._checkpoints.unsealed(connection)
        at = self._checkpoints.last_at(connection)
        self._set("memvault_audit_checkpoint_timestamp_seconds", {} if at is None else {(): at.timestamp()})
        late = self._checkpoints.undelivered(connection)
        self._set("memvault_audit_undelivered_seconds", {(sink,): _age(since) for sink, since in late.items()})

    def _look_at_unsealed(self) -> None:
        """Tell since when the oldest row waits to be sealed: the row itself is behind row-level security."""
        oldest, written = self._unsealed, None
        if oldest is not None:
            with self._database.transaction(Scope.of(service_principal(TenantId(oldest[0])))) as connection:
                written = self._checkpoints.written_at(connection, oldest[1])
        self._set("memvault_audit_unsealed_rows", {(): self._checkpoints.count_due()})
        self._set("memvault_audit_unsealed_seconds", {(): _age(written)})

    def _verified(self, connection: Connection) -> None:
        last = self._tasks.last(connection, VERIFIED)
        if last is not None:
            state, at = last
            self._set("memvault_audit_verify_timestamp_seconds", {(): at.timestamp()})
            self._set("memvault_audit_verify_ok", {(): float(state is TaskState.SUCCEEDED)})

    def _statuses(self, connection: Connection) -> None:
        self._set("memvault_tenants", {(status,): count for status, count in Tenants.statuses(connection).items()})

    def _go_round(self, count: int) -> None:
        """Look at the next tenants. Sums are shown when the round is over, of every tenant that could be looked at."""
        if self._round is None:
            self._round, self._round_began = _Round(), clock.monotonic()
            self._waiting = list(self._tenants.living())
        seen = self._round
        for tenant in self._waiting[:count]:
            try:
                self._look_at(tenant, seen)
            except MemvaultError as error:
                _log.warning("a tenant could not be looked at", extra={"tenant": str(tenant.id), "error": error.code})
        del self._waiting[:count]
        if self._waiting:
            return
        self._round = None
        # A round over many tenants takes many looks, and the next one as many.
        looks = 2 * (clock.monotonic() - self._round_began) / self._interval + _LOOKS
        self._set("memvault_record_memories", {(): seen.memories}, looks=looks)
        self._set("memvault_index_drift", {(): seen.drift}, looks=looks)
        self._set("memvault_quarantine_memories", {(): seen.quarantined}, looks=looks)
        self._set("memvault_retention_oldest_seconds", {(): _age(seen.oldest_run)}, looks=looks)

    def _look_at(self, tenant: Tenant, seen: _Round) -> None:
        scope = Scope.of(service_principal(tenant.id))
        with self._database.transaction(scope) as connection:
            connection.execute(_PATIENCE)
            memories, _ = stored(connection)
            seen.quarantined += self._quarantine.size(connection)
            # A tenant that was never swept waits since it is there.
            ran = run_ledger.last_ended(connection) or tenant.created_at
        seen.memories += memories
        seen.oldest_run = ran if seen.oldest_run is None else min(ran, seen.oldest_run)
        seen.drift += abs(memories - self._index.of(scope).count())


def _age(moment: datetime | None) -> float:
    """Return the seconds since a moment; 0 for none and for one that is still to come."""
    return 0.0 if moment is None else max(0.0, (clock.now() - moment).total_seconds())
