"""Counts of what the service does in the background, for Prometheus: no ids, no tenants, no names."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter

#: One a process; the face that answers `/metrics` adds it to its own.
WORK: Final = CollectorRegistry()

ERASURES: Final = Counter(
    "memvault_erasures", "Erasures whose rows were removed, and that were completed.", ("kind", "step"), registry=WORK
)
ERASED_ROWS: Final = Counter("memvault_erased_rows", "Rows that erasures removed.", ("table",), registry=WORK)

RETENTION_STEPS: Final = Counter(
    "memvault_retention_steps", "Transactions of retention runs, real and dry.", ("kind",), registry=WORK
)
FORGOTTEN: Final = Counter(
    "memvault_retention_memories", "Memories that retention deleted or hid.", ("action",), registry=WORK
)
