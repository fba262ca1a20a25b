"""Requests a second of a tenant, shared by all replicas: each takes some out of one bucket and spends them itself."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Final

from service import clock
from service.errors import TooManyRequests
from service.scope import Caller, Limit, Scope, TenantId, service_principal
from service.storage.database import Database
from service.tenants.quotas import Quotas
from service.tenants.refusals import Refusals
from service.tenants.usage import take_requests

#: A replica takes a tenth of a second's requests at a time, and gives up what it has not spent after this long.
_PART: Final = 10
_KEPT_SECONDS: Final = 5.0
#: An empty bucket is not asked again before this, so that a flood of requests is no flood of questions.
_SHORTEST_WAIT: Final = 0.05
_MOST: Final = 10_000


@dataclass(slots=True)
class _Share:
    """What a replica has of a tenant's bucket: so many requests until a moment, or nothing before another."""

    rate: int
    left: int = 0
    until: float = 0.0
    empty_until: float = 0.0


class Rates:
    """Lets requests pass, or not. Where a tenant has no limit it does nothing."""

    def __init__(self, database: Database, quotas: Quotas, refusals: Refusals) -> None:
        self._database = database
        self._quotas = quotas
        self._refusals = refusals
        self._lock = threading.Lock()
        self._shares: dict[TenantId, _Share] = {}

    def limited(self, caller: Caller) -> bool:
        """Tell whether the caller's tenant has a limit, and `admit` is to be asked."""
        return self._quotas.requests_per_second(caller.principal) is not None

    def admit(self, caller: Caller) -> None:
        """Return if the caller's tenant may make one more request now.

        Raises:
            TooManyRequests: with when to come again.
        """
        rate = self._quotas.requests_per_second(caller.principal)
        if rate is None:
            return
        tenant_id = caller.principal.tenant_id
        wait = self._spend(tenant_id, rate)
        if wait is None:
            wait = self._fetch(tenant_id, rate)
        if wait <= 0:
            return
        self._refusals.note(caller, Limit.REQUESTS_PER_SECOND)
        seconds = max(1, math.ceil(wait))
        raise TooManyRequests(
            f"this tenant may make {rate} requests a second: come again in {seconds} s",
            retry_after=seconds,
            more={
                "X-RateLimit-Limit": str(rate),
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": str(math.ceil(clock.now().timestamp() + wait)),
            },
        )

    def _spend(self, tenant_id: TenantId, rate: int) -> float | None:
        """Spend one of our own: 0. Return how long to wait when there is none, or None when that must be asked."""
        moment = clock.monotonic()
        with self._lock:
            share = self._shares.get(tenant_id)
            if share is None or share.rate != rate:
                return None
            if share.left > 0 and moment < share.until:
                share.left -= 1
                return 0.0
            return share.empty_until - moment if moment < share.empty_until else None

    def _fetch(self, tenant_id: TenantId, rate: int) -> float:
        """Take a part of the bucket and spend one of it: 0; or return how long it will be empty."""
        wanted = max(1, rate // _PART)
        with self._database.transaction(_scope(tenant_id)) as connection:
            taken, left = take_requests(connection, _scope(tenant_id), rate=rate, wanted=wanted)
        moment = clock.monotonic()
        with self._lock:
            share = self._shares.get(tenant_id)
            if share is None or share.rate != rate:
                if len(self._shares) >= _MOST:
                    self._shares.clear()
                share = self._shares[tenant_id] = _Share(rate)
            if taken:
                kept = share.left if moment < share.until else 0
                share.left, share.until, share.empty_until = kept + taken - 1, moment + _KEPT_SECONDS, 0.0
                return 0.0
            wait = max((1 - left) / rate, _SHORTEST_WAIT)
            share.empty_until = moment + wait
            return wait


def _scope(tenant_id: TenantId) -> Scope:
    return Scope.of(service_principal(tenant_id))
