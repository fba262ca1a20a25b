"""What each tenant asks of the LLM, by the tenant's id for the few that ask most, and for all others together.

A tenant's series begin when it is among those and end when it is not any more; what it asks at other times counts
as `other`. So no call is counted twice, rates add up, and the number of series is bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from service import clock

OTHER: Final = "other"
#: Seconds between two choices of the tenants that have series; what counts for it is halved each time.
_CHOOSE_EVERY: Final = 600.0
#: Tenants whose use is remembered for that choice.
_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class _Used:
    calls: float = 0
    cost: float = 0
    tokens: dict[str, float] = field(default_factory=lambda: {"input": 0.0, "output": 0.0})


class LlmUse(Collector):
    """Counters of calls, tokens and cost units."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._most = 0
        self._costs = (0.0, 0.0)
        self._shown: dict[str, _Used] = {OTHER: _Used()}
        self._weights: dict[UUID, float] = {}
        self._chosen_at = 0.0

    def configure(self, *, tenants: int, input_cost: float, output_cost: float) -> None:
        """Say how many tenants have series of their own, and what a million tokens cost."""
        with self._lock:
            self._most, self._costs = tenants, (input_cost, output_cost)
            if not tenants:
                self._shown = {OTHER: self._shown[OTHER]}

    def count(self, tenant_id: UUID | None, *, read: int = 0, written: int = 0) -> None:
        """Count one call and its tokens."""
        with self._lock:
            if tenant_id is not None and self._most:
                self._weigh(tenant_id, 1 + read + written)
            used = self._shown.get(str(tenant_id)) or self._shown[OTHER]
            used.calls += 1
            used.tokens["input"] += read
            used.tokens["output"] += written
            used.cost += (read * self._costs[0] + written * self._costs[1]) / 1_000_000

    def _weigh(self, tenant_id: UUID, weight: float) -> None:
        self._weights[tenant_id] = self._weights.get(tenant_id, 0.0) + weight
        if len(self._shown) <= self._most:
            self._shown.setdefault(str(tenant_id), _Used())
        moment = clock.monotonic()
        if moment - self._chosen_at < _CHOOSE_EVERY and len(self._weights) <= _REMEMBERED:
            return
        self._chosen_at = moment
        ordered = sorted(self._weights.items(), key=lambda one: one[1], reverse=True)
        kept = {str(one) for one, _ in ordered[: self._most]}
        self._weights = {one: weight / 2 for one, weight in ordered[: _REMEMBERED // 2]}
        self._shown = {name: used for name, used in self._shown.items() if name in kept or name == OTHER}
        for name in kept:
            self._shown.setdefault(name, _Used())

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Return the counters without a value."""
        return self._families()

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return the counters."""
        calls, tokens, cost = families = self._families()
        with self._lock:
            for name, used in self._shown.items():
                calls.add_metric((name,), used.calls)
                cost.add_metric((name,), used.cost)
                for kind, count in used.tokens.items():
                    tokens.add_metric((name, kind), count)
        return families

    @staticmethod
    def _families() -> tuple[CounterMetricFamily, CounterMetricFamily, CounterMetricFamily]:
        return (
            CounterMetricFamily("memvault_tenant_llm_calls", "Calls of the LLM, by tenant.", labels=("tenant",)),
            CounterMetricFamily(
                "memvault_tenant_llm_tokens", "Tokens of those calls, as far as told.", labels=("tenant", "kind")
            ),
            CounterMetricFamily(
                "memvault_tenant_llm_cost_units",
                "Cost of those tokens by llm.input_cost and llm.output_cost.",
                labels=("tenant",),
            ),
        )
