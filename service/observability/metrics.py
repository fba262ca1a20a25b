"""Counts and durations of what the service does, for Prometheus: no names, no content, and ids of tenants only where
`metrics.tenants` asks for them.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.observability.figures import Figures
from service.observability.per_tenant import LlmUse

#: One a process; the face that answers `/metrics` adds it to its own.
WORK: Final = CollectorRegistry()

#: How everything stands, as it was last looked at.
FIGURES: Final = Figures()
WORK.register(FIGURES)
#: What each tenant asks of the LLM.
LLM_USE: Final = LlmUse()
WORK.register(LLM_USE)

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

TOOL_CALLS: Final = Counter(
    "memvault_mcp_calls", "Calls of MCP tools that were answered.", ("tool", "outcome"), registry=WORK
)
TOOL_SECONDS: Final = Histogram(
    "memvault_mcp_call_seconds", "Seconds that calls of MCP tools took.", ("tool",), buckets=_SECONDS, registry=WORK
)

CREDENTIALS_REFUSED: Final = Counter(
    "memvault_auth_refusals", "Requests without a credential that is valid.", ("face",), registry=WORK
)
REFUSALS: Final = Counter(
    "memvault_refusals", "Actions that were refused to a valid credential.", ("reason",), registry=WORK
)
LIMITS_MET: Final = Counter("memvault_limit_refusals", "Refusals by a limit of a tenant.", ("limit",), registry=WORK)

JOBS: Final = Counter("memvault_jobs", "Jobs that ended, or wait again.", ("task", "outcome"), registry=WORK)
JOB_SECONDS: Final = Histogram(
    "memvault_job_seconds", "Seconds that jobs of the queue took.", ("task",), buckets=_SECONDS, registry=WORK
)

LLM_CALLS: Final = Counter("memvault_llm_calls", "Calls of the LLM.", ("provider", "outcome"), registry=WORK)
LLM_SECONDS: Final = Histogram(
    "memvault_llm_call_seconds", "Seconds that calls of the LLM took.", ("provider",), buckets=_SECONDS, registry=WORK
)

POOL_TIMEOUTS: Final = Counter(
    "memvault_pool_timeouts", "Times that no connection to Postgres was free in time.", registry=WORK
)
INDEX_MENDED: Final = Counter(
    "memvault_index_mended",
    "What a comparison of the index with the record found to differ, and mended.",
    ("kind",),
    registry=WORK,
)
SPANS: Final = Counter("memvault_trace_spans", "Spans that were exported, or dropped.", ("outcome",), registry=WORK)

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
