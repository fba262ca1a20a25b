"""Retention runs: what the rules say is due, listed by a dry run and done by a real one, in short transactions.

A run goes through the tenant's memories by their ids. Each step is one transaction: it locks some memories, plans on
what they are now, does what is due, and writes down how far it is, with its audit row. So a run that is killed goes on
where it was, and any number of processes can take its steps in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, select, update

from service import clock
from service.audit.details import MemoriesForgotten, RetentionRunRead, RetentionRunsListed, RetentionRunStarted
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.audit.uses import last_uses, trail_reaches_back_to
from service.errors import NotFound
from service.holds.guard import held_among, wait_for_placing
from service.holds.rules import CountedFrom, Rule, Rules
from service.memories.deleting import delete_memories
from service.observability.metrics import FORGOTTEN, RETENTION_STEPS
from service.policy.gate import Gate
from service.records import Page
from service.retention import run_ledger
from service.retention.due import may_be_due
from service.retention.plan import Facts, Planned, Step, decide
from service.retention.run_ledger import ByRule, Run
from service.scope import SERVICE_ID, Action, Caller, Scope, TenantId, installation_caller
from service.settings import Settings
from service.storage.database import Database
from service.storage.kept_filters import lookup
from service.storage.keyring import Keyring, lost_of
from service.storage.outbox import enqueue
from service.storage.record import Record, Unreadable, memories_table
from service.storage.stored import StoredMemory

#: Memories that one transaction looks at.
STEP: Final = 500
_m: Final[Any] = memories_table.c
#: Hears how many memories a step looked at.
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run with its counts by rule."""

    run: Run
    by_rule: Sequence[ByRule] = ()


@dataclass(frozen=True, slots=True)
class _Uses:
    """When memories were last shown, as the trail told at a moment; what it does not tell of counts as `floor`."""

    at: datetime
    known: dict[UUID, datetime] = field(default_factory=dict)
    floor: datetime | None = None


class Runs:
    """Runs of retention. They need no index: what they delete leaves it by the outbox."""

    def __init__(
        self, settings: Settings, database: Database, keyring: Keyring, record: Record, trail: Trail, gate: Gate
    ) -> None:
        self._settings = settings
        days = settings.retention.expired_days
        self._expired_after = None if days is None else timedelta(days=days)
        self._database = database
        self._keyring = keyring
        self._record = record
        self._trail = trail
        self._gate = gate
        self._rules = Rules(keyring)

    def start(self, caller: Caller, scope: Scope, *, dry: bool) -> Run:
        """Begin a run, or return the real one that is under way.

        Raises:
            Forbidden: without `retention:manage`, or for a principal that is bound to users.
        """
        self._gate.check(caller, Action.RUN_RETENTION)
        self._gate.check_unbound(caller, Action.RUN_RETENTION)
        asked_by = None if caller.principal.id == SERVICE_ID else caller.principal.id
        with self._database.transaction(scope) as connection:
            run, is_new = run_ledger.begin(connection, scope, dry=dry, asked_by=asked_by)
            self._trail.write(
                connection,
                caller,
                AuditEvent.RETENTION_RUN_STARTED,
                targets=[run.id],
                detail=RetentionRunStarted(dry=dry, joined=not is_new),
            )
        return run

    def go_on(self, scope: Scope, run_id: UUID, *, progress: Progress | None = None) -> RunReport:
        """Take steps of a run until it has ended, and return it."""
        uses: _Uses | None = None
        while True:
            uses = uses or self._uses(scope)
            seen = self._step(scope, run_id, uses)
            if seen is None:
                break
            if progress is not None:
                progress(seen)
        with self._database.transaction(scope) as connection:
            run = run_ledger.find(connection, scope, run_id)
            if run is None:
                raise NotFound("there is no such retention run")
            return RunReport(run, run_ledger.by_rule(connection, scope, run_id))

    def unfinished(self, scope: Scope) -> list[UUID]:
        """Return the real runs of a tenant that a crash cut short or that somebody takes steps of."""
        with self._database.transaction(scope) as connection:
            return run_ledger.unfinished(connection, scope)

    def count(self, scope: Scope) -> int:
        """Return how many memories a run of the tenant will look at."""
        with self._database.transaction(scope) as connection:
            return self._record.count(connection)

    def forget_old(self, scope: Scope, *, before: datetime) -> int:
        """Remove the reports of runs that ended before a moment."""
        with self._database.transaction(scope) as connection:
            return run_ledger.forget_old(connection, scope, before=before)

    def get(self, caller: Caller, scope: Scope, run_id: UUID) -> RunReport:
        """Return a run with its counts by rule.

        Raises:
            NotFound: when the tenant has no such run.
        """
        self._check_reading(caller, targets=[run_id])
        with self._database.transaction(scope) as connection:
            run = run_ledger.find(connection, scope, run_id)
            counts = run_ledger.by_rule(connection, scope, run_id)
            outcome = Outcome.DONE if run else Outcome.NOT_FOUND
            self._trail.write(connection, caller, AuditEvent.RETENTION_RUN_READ, targets=[run_id], outcome=outcome)
        if run is None:
            raise NotFound("there is no such retention run")
        return RunReport(run, counts)

    def items(self, caller: Caller, scope: Scope, run_id: UUID, *, page: int, size: int) -> Page[Planned]:
        """Return one page of what a run did or, a dry one, what the real run would do.

        Raises:
            NotFound: when the tenant has no such run.
        """
        self._check_reading(caller, targets=[run_id])
        with self._database.transaction(scope) as connection:
            run = run_ledger.find(connection, scope, run_id)
            found, total = run_ledger.items(connection, scope, run_id, skip=(page - 1) * size, size=size)
            self._trail.write(
                connection,
                caller,
                AuditEvent.RETENTION_RUN_READ,
                targets=[run_id],
                results=[one.memory_id for one in found],
                outcome=Outcome.DONE if run else Outcome.NOT_FOUND,
                detail=RetentionRunRead(page=page, total=total),
            )
        if run is None:
            raise NotFound("there is no such retention run")
        return Page(found, total, page, size)

    def list(self, caller: Caller, scope: Scope, *, page: int, size: int) -> Page[Run]:
        """Return one page of the tenant's runs, the newest first."""
        self._gate.check(caller, Action.LIST_RETENTION_RUNS)
        self._gate.check_unbound(caller, Action.LIST_RETENTION_RUNS)
        with self._database.transaction(scope) as connection:
            found, total = run_ledger.page(connection, scope, skip=(page - 1) * size, size=size)
            detail = RetentionRunsListed(page=page, total=total)
            ids = [one.id for one in found]
            self._trail.write(connection, caller, AuditEvent.RETENTION_RUNS_LISTED, targets=ids, detail=detail)
        return Page(found, total, page, size)

    def _check_reading(self, caller: Caller, *, targets: Sequence[UUID]) -> None:
        self._gate.check(caller, Action.GET_RETENTION_RUN, targets=targets)
        self._gate.check_unbound(caller, Action.GET_RETENTION_RUN)

    def _step(self, scope: Scope, run_id: UUID, uses: _Uses) -> int | None:
        """Take one step; return how many memories it looked at, or None when the run has ended."""
        with self._database.transaction(scope) as connection:
            run = run_ledger.find(connection, scope, run_id, lock=True)
            if run is None or run.is_done:
                return None
            rules = self._rules.current(connection, scope)
            due = may_be_due(rules, lookup(self._keyring, scope), run.now, expired_after=self._expired_after)
            query = select(_m.id, due.label("due")).order_by(_m.id).limit(STEP)
            seen = connection.execute(query if run.place is None else query.where(_m.id > run.place)).all()
            if not run.dry:
                # Before the rows are locked, as every writer does it.
                wait_for_placing(connection)
            unreadable: Unreadable = {}
            found = self._record.find(
                connection,
                scope,
                [row.id for row in seen if row.due],
                users=None,
                on=None,
                lock=not run.dry,
                unreadable=unreadable,
            )
            # No rule can be asked for what is lost: it stays, and holds up nothing else.
            lost_of(unreadable)
            planned = self._planned(connection, scope, rules, list(found.values()), run.now, uses)
            if not run.dry:
                self._do(connection, scope, run, [found[one.memory_id] for one in planned], planned)
            place = seen[-1].id if len(seen) == STEP else None
            run_ledger.advance(connection, scope, run, planned, place=place, seen=len(seen))
        RETENTION_STEPS.labels("dry" if run.dry else "real").inc()
        if not run.dry:
            for one in planned:
                FORGOTTEN.labels(one.step.value).inc()
        return len(seen)

    def _planned(
        self,
        connection: Connection,
        scope: Scope,
        rules: Sequence[Rule],
        memories: Sequence[StoredMemory],
        now: datetime,
        uses: _Uses,
    ) -> Sequence[Planned]:
        # Their history would be emptied with them.
        held = held_among(connection, scope, [memory.id for memory in memories], history=True)

        def plan(memory: StoredMemory, more: dict[UUID, datetime]) -> Planned | None:
            used = [one for one in (more.get(memory.id), uses.known.get(memory.id), uses.floor) if one is not None]
            facts = Facts(memory, max(used, default=None), memory.id in held)
            return decide(rules, facts, now, expired_after=self._expired_after)

        due = [memory for memory in memories if plan(memory, {}) is not None]
        more: dict[UUID, datetime] = {}
        if due and any(rule.body.counted_from is CountedFrom.USED for rule in rules):
            # Shown since the trail was asked.
            more = last_uses(connection, scope, since=uses.at, ids=[memory.id for memory in due])
        return [planned for memory in due if (planned := plan(memory, more)) is not None]

    def _uses(self, scope: Scope) -> _Uses:
        """Return when memories were last shown, where a rule wants to know."""
        moment = clock.now()
        with self._database.transaction(scope) as connection:
            rules = self._rules.current(connection, scope)
            if not any(rule.body.counted_from is CountedFrom.USED for rule in rules):
                return _Uses(moment)
            floor = trail_reaches_back_to(connection, scope)
            since = floor or datetime.min.replace(tzinfo=moment.tzinfo)
            return _Uses(moment, last_uses(connection, scope, since=since), floor)

    def _do(
        self,
        connection: Connection,
        scope: Scope,
        run: Run,
        memories: Sequence[StoredMemory],
        planned: Sequence[Planned],
    ) -> None:
        """Delete and hide, with one audit row for the step."""
        if not planned:
            return
        steps = {one.memory_id: one.step for one in planned}
        deleted = [memory for memory in memories if steps[memory.id] is Step.DELETE]
        hidden = [memory for memory in memories if steps[memory.id] is Step.HIDE]
        keep_texts = self._settings.history.keep_deleted
        delete_memories(connection, scope, self._record, deleted, keep_texts=keep_texts)
        if hidden:
            hide(connection, scope, hidden, run.now)
        self._trail.write(
            connection,
            installation_caller(TenantId(scope.tenant_id)),
            AuditEvent.MEMORIES_FORGOTTEN,
            targets=[memory.id for memory in deleted],
            results=[memory.id for memory in hidden],
            detail=MemoriesForgotten(run=run.id, deleted=len(deleted), hidden=len(hidden)),
        )


def hide(connection: Connection, scope: Scope, memories: Sequence[StoredMemory], now: datetime) -> None:
    """End the visibility of memories with the day before; their content and their age stay as they are."""
    yesterday = now.date() - timedelta(days=1)
    for memory in memories:
        after = replace(memory, expires_on=yesterday, version=memory.version + 1)
        # Without the digest an identical add finds no hidden twin and stores what was said anew.
        connection.execute(
            update(memories_table)
            .where(_m.id == memory.id)
            .values(expires_on=yesterday, version=after.version, identity_mac=None)
        )
    enqueue(connection, scope, {memory.id: memory.version + 1 for memory in memories})
