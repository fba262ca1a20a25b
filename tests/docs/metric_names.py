"""The metrics that the service has, by the name that a scrape shows, with their kind and labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.api.metrics import RequestMetrics
from service.observability.metrics import WORK


def metrics() -> dict[str, tuple[str, list[str]]]:
    """Return kind and labels of every metric of our own."""
    found: dict[str, tuple[str, list[str]]] = {}
    for registry in (WORK, RequestMetrics().registry):
        for collector in _collectors(registry):
            labels = list(getattr(collector, "_labelnames", ()))
            # What has no description are the process's own figures.
            for family in collector.describe() if hasattr(collector, "describe") else ():
                own = labels or list(getattr(family, "_labelnames", ()))
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found[name] = (family.type, own)
    return found


def series() -> set[str]:
    """Return every name that a query may use."""
    names = set()
    for name, (kind, _) in metrics().items():
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names | {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}


def _collectors(registry: Any) -> Iterable[Any]:
    return list(registry._collector_to_names)
