"""How everything stands: figures that are looked at now and then, and read by a scrape without asking anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service import clock

#: The values of one figure by those of its labels.
Values = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class _Declared:
    name: str
    meaning: str
    labels: tuple[str, ...] = ()


_DECLARED: Final = (
    _Declared("memvault_build_info", "The release that runs; always 1.", ("version",)),
    _Declared("memvault_part_up", "Parts of /readyz: 1 is ok, 0 is not. Those that are off have none.", ("part",)),
    _Declared("memvault_store_up", "Stores that answer: 1, else 0. Of the LLM the last call counts.", ("store",)),
    _Declared("memvault_store_latency_seconds", "Seconds that the last look at a store took.", ("store",)),
    _Declared("memvault_pool_connections", "Connections to Postgres: in use, and at most.", ("state",)),
    _Declared("memvault_queue_jobs", "Jobs that are due, running, or scheduled for later.", ("task", "state")),
    _Declared("memvault_queue_oldest_seconds", "Age of the oldest job that is due.", ("task",)),
    _Declared("memvault_outbox_rows", "Changes that the index has yet to follow, or to be looked at once more."),
    _Declared("memvault_outbox_oldest_seconds", "Age of the oldest of them; 0 without any."),
    _Declared("memvault_index_points", "Points of the index."),
    _Declared("memvault_record_memories", "Memories of the record, as of the last round through the tenants."),
    _Declared("memvault_index_drift", "Memories without a point and points without a memory, by number, of a tenant."),
    _Declared("memvault_quarantine_memories", "Memories that wait for a reviewer."),
    _Declared("memvault_tenants", "Tenants by status.", ("status",)),
    _Declared("memvault_audit_unsealed_rows", "Notes of rows of the trail that are not sealed."),
    _Declared("memvault_audit_unsealed_seconds", "Age of the oldest row that is not sealed; 0 without any."),
    _Declared("memvault_audit_checkpoint_timestamp_seconds", "When the newest checkpoint was signed."),
    _Declared(
        "memvault_audit_undelivered_seconds",
        "Age of the oldest checkpoint that a place lacks.",
        ("sink",),
    ),
    _Declared("memvault_audit_verify_timestamp_seconds", "When the whole trail was last verified."),
    _Declared("memvault_audit_verify_ok", "Whether that verification found everything as it was sealed."),
    _Declared("memvault_retention_oldest_seconds", "Time since its last run of the tenant that waits longest."),
    _Declared("memvault_erasures_open", "Erasures that are not completed: due, or scheduled for later.", ("state",)),
    _Declared("memvault_erasures_overdue_seconds", "For how long the erasure that waits longest has been due."),
    _Declared("memvault_data_free_bytes", "Free bytes of the volume that the data folder is on."),
    _Declared("memvault_data_size_bytes", "Bytes of that volume."),
)


class Figures(Collector):
    """Figures by name. What is not looked at again in time is not shown, or shown as 0 where that is the news."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, float, Values, bool]] = {}
        self._asked: dict[tuple[str, str], Callable[[], Values]] = {}

    def set(self, name: str, values: Values, *, good_for: float, by: str = "", zero_after: bool = False) -> None:
        """Keep what was seen just now, for so many seconds; `by` parts what several look at."""
        with self._lock:
            self._known[name, by] = (clock.monotonic(), good_for, dict(values), zero_after)

    def ask(self, name: str, question: Callable[[], Values]) -> None:
        """Ask at each scrape. For what costs nothing and waits for nothing."""
        with self._lock:
            self._asked[name, ""] = question

    def forget(self) -> None:
        """Show nothing any more: what was looked at is closed."""
        with self._lock:
            self._known.clear()
            self._asked.clear()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return every figure without a value."""
        return [GaugeMetricFamily(one.name, one.meaning, labels=one.labels) for one in _DECLARED]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return what is known now."""
        with self._lock:
            known, asked = dict(self._known), dict(self._asked)
        moment = clock.monotonic()
        for one in _DECLARED:
            family = GaugeMetricFamily(one.name, one.meaning, labels=one.labels)
            for (name, _), (at, good_for, values, zero_after) in known.items():
                late = moment - at > good_for
                if name != one.name or (late and not zero_after):
                    continue
                for labels, value in values.items():
                    family.add_metric(labels, 0.0 if late else value)
            question = asked.get((one.name, ""))
            if question is not None:
                for labels, value in _answered(question).items():
                    family.add_metric(labels, value)
            yield family


def _answered(question: Callable[[], Values]) -> Values:
    """Return the answer; a scrape does not fail because of one figure."""
    try:
        return question()
    except Exception:
        return {}
