"""What a tenant may use: decides about memories, bytes, waiting events and the LLM, and says what a limit means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection

from service import clock
from service.errors import QuotaExceeded, TooManyRequests, TooManyWaiting
from service.scope import Caller, Limit, Principal, Scope, TenantId, service_principal
from service.settings import Quotas as Defaults
from service.storage.database import Database
from service.tenants import usage
from service.tenants.actions import is_leaving, limits_of
from service.tenants.refusals import Refusals

Limits = Mapping[Limit, int | None]
#: Seconds after which a caller that met a full queue is asked to come again.
_COME_AGAIN: Final = 30
#: An extraction that waits for the next day looks this often whether the limit was raised.
_LOOK_AGAIN: Final = timedelta(hours=1)
_RAISE: Final = "or let an operator of the installation raise it (memvault tenant limits)"


@dataclass(frozen=True, slots=True)
class Used:
    """What a tenant has and has used today, by limit. What comes and goes by the second has no count.

    Memories and bytes are those of the record and those that wait for a reviewer.
    """

    counts: Mapping[Limit, int]
    limits: Limits


@dataclass(frozen=True, slots=True)
class Postponed:
    """An LLM call that has to wait: until when, because of which limit, and what to tell."""

    until: datetime
    limit: Limit
    code: str
    reason: str


class Quotas:
    """The limits of all tenants: the installation's defaults, and what was set for one tenant."""

    def __init__(self, defaults: Defaults, database: Database, refusals: Refusals) -> None:
        self._defaults = defaults
        self._database = database
        self._refusals = refusals

    def limits(self, own: Mapping[str, int | None]) -> Limits:
        """Return every limit of a tenant with these of its own; None is no limit."""
        return {limit: own.get(limit.value, getattr(self._defaults, limit.value)) for limit in Limit}

    def refuse_full(self, caller: Caller, earlier: Callable[[Connection], UUID | None]) -> UUID | None:
        """Refuse an add before any work when the tenant is full already; `check_room` has the last word.

        A repeated request is not refused. `earlier` returns the event of the first, which is returned then; it is not
        asked about a tenant without limits.

        Raises:
            QuotaExceeded: when there is no room for one memory more.
        """
        limits = self.limits(caller.principal.limits)
        if limits[Limit.MEMORIES] is None and limits[Limit.BYTES] is None:
            return None
        try:
            with self._database.transaction(caller.scope) as connection:
                event_id = earlier(connection)
                if event_id is None:
                    self._check_full(connection, caller.scope)
        except QuotaExceeded as error:
            self.refused(caller, error)
            raise
        return event_id

    def _check_full(self, connection: Connection, scope: Scope) -> None:
        limits = self.limits(limits_of(connection, scope.tenant_id))
        if limits[Limit.MEMORIES] is None and limits[Limit.BYTES] is None:
            return
        error = _over(limits, usage.kept(connection), full=True)
        if error is not None:
            raise error

    def check_room(self, connection: Connection, scope: Scope) -> None:
        """Return if what the transaction has written is within the tenant's room. To be asked once it is written.

        Exact: two transactions of a tenant with a limit pass one after the other from here to their end.

        Raises:
            QuotaExceeded: otherwise; the transaction has to be rolled back.
        """
        limits = self.limits(limits_of(connection, scope.tenant_id))
        if limits[Limit.MEMORIES] is None and limits[Limit.BYTES] is None:
            return
        usage.one_by_one(connection, scope, "memories")
        error = _over(limits, usage.kept(connection), full=False)
        if error is not None:
            raise error

    def check_waiting(self, connection: Connection, scope: Scope) -> int | None:
        """Return how many events of the tenant may wait, or None; from here on its adds pass one at a time."""
        most = self.limits(limits_of(connection, scope.tenant_id))[Limit.EVENTS_WAITING]
        if most is not None:
            usage.one_by_one(connection, scope, "events")
        return most

    def too_many_waiting(self, most: int) -> TooManyWaiting:
        """Return the refusal of an add for whose event there is no place."""
        return TooManyWaiting(
            f"{most} adds of this tenant are waiting for the language model, which is its limit: come again later",
            retry_after=_COME_AGAIN,
        )

    def refused(self, caller: Caller, error: QuotaExceeded | TooManyWaiting) -> None:
        """Write a refusal into the trail. Outside the transaction that was rolled back for it."""
        self._refusals.note(caller, error.limit)

    def postponed(self, caller: Caller, postponed: Postponed) -> None:
        """Write into the trail that a call of the LLM has to wait."""
        self._refusals.note(caller, postponed.limit)

    def too_many_calls(self, caller: Caller, postponed: Postponed) -> TooManyRequests:
        """Return the refusal of a request that cannot wait for the LLM so long; it is in the trail by then."""
        self.postponed(caller, postponed)
        wait = int((postponed.until - clock.now()).total_seconds()) + 1
        return TooManyRequests(postponed.reason, retry_after=wait)

    def begin_llm_call(self, connection: Connection, scope: Scope) -> Postponed | None:
        """Count one call of the LLM, or return until when it has to wait: the next day begins at midnight UTC."""
        limits = self.limits(limits_of(connection, scope.tenant_id))
        day = clock.today()
        most_calls, most_tokens = limits[Limit.LLM_CALLS_PER_DAY], limits[Limit.LLM_TOKENS_PER_DAY]
        if most_calls is not None or most_tokens is not None:
            usage.one_by_one(connection, scope, "llm")
            calls, tokens = usage.llm_used(connection, day)
            moment = clock.now()
            midnight = datetime.combine(day + timedelta(days=1), time_of_day(), UTC)
            until = min(midnight, moment + _LOOK_AGAIN)
            if most_calls is not None and calls >= most_calls:
                reason = f"the tenant may call the language model {most_calls} times a day: it goes on tomorrow (UTC)"
                return Postponed(until, Limit.LLM_CALLS_PER_DAY, "llm_calls_used_up", reason)
            if most_tokens is not None and tokens >= most_tokens:
                reason = (
                    f"the tenant may use {most_tokens} tokens of the language model a day: it goes on tomorrow (UTC)"
                )
                return Postponed(until, Limit.LLM_TOKENS_PER_DAY, "llm_tokens_used_up", reason)
        usage.use_llm(connection, scope, day, calls=1)
        return None

    def spend_tokens(self, connection: Connection, scope: Scope, tokens: int) -> None:
        """Count the tokens of a call that was made. Of a tenant that was deleted meanwhile nothing is left to count."""
        if tokens and not is_leaving(connection, scope.tenant_id):
            usage.use_llm(connection, scope, clock.today(), tokens=tokens)

    def spend_tokens_apart(self, scope: Scope, tokens: int) -> None:
        """Count the tokens of a call in a transaction of its own: there is nothing else to write with them."""
        if tokens:
            with self._database.transaction(scope) as connection:
                self.spend_tokens(connection, scope, tokens)

    def end_llm_call(self, connection: Connection, scope: Scope, begun: date, asked: bool, tokens: int) -> None:
        """Count what a call used that has ended. One that was never made is taken back from the day it began."""
        self.spend_tokens(connection, scope, tokens)
        if not asked and not is_leaving(connection, scope.tenant_id):
            usage.use_llm(connection, scope, begun, calls=-1)

    def end_llm_call_apart(self, scope: Scope, begun: date, asked: bool, tokens: int) -> None:
        """Do the same in a transaction of its own: there is nothing else to write with it."""
        if tokens or not asked:
            with self._database.transaction(scope) as connection:
                self.end_llm_call(connection, scope, begun, asked, tokens)

    def used(self, tenant_id: TenantId) -> Used:
        """Return what a tenant has and has used today, and its limits."""
        with self._database.transaction(Scope.of(service_principal(tenant_id))) as connection:
            memories, size = usage.kept(connection)
            calls, tokens = usage.llm_used(connection, clock.today())
            limits = self.limits(limits_of(connection, tenant_id))
        counts = {
            Limit.MEMORIES: memories,
            Limit.BYTES: size,
            Limit.LLM_CALLS_PER_DAY: calls,
            Limit.LLM_TOKENS_PER_DAY: tokens,
        }
        return Used(counts, limits)

    def requests_per_second(self, principal: Principal) -> int | None:
        """Return how many requests a second the principal's tenant may make, or None."""
        return self.limits(principal.limits)[Limit.REQUESTS_PER_SECOND]

    @staticmethod
    def any_to_tidy() -> ColumnElement[bool]:
        """Return the condition that `tidy` has anything to do for the tenant."""
        return usage.any_to_tidy(clock.today())

    def tidy(self, connection: Connection) -> None:
        """Add up what has been counted, and forget what is long past."""
        usage.add_up(connection)
        usage.forget_llm_use(connection, clock.today())


def _over(limits: Limits, kept: tuple[int, int], *, full: bool) -> QuotaExceeded | None:
    """Return the refusal of what is over a limit, or, with `full`, of anything more."""
    for limit, count in zip((Limit.MEMORIES, Limit.BYTES), kept, strict=True):
        most = limits[limit]
        if most is not None and (count >= most if full else count > most):
            what = "memories" if limit is Limit.MEMORIES else "bytes of memories"
            return QuotaExceeded(
                f"this tenant may keep {most} {what}, and this would be more: delete some, {_RAISE}", limit=limit
            )
    return None
