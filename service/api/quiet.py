"""What every app tells FastAPI of its own telemetry: to leave it off."""

from __future__ import annotations

from typing import Final

from fastapi.telemetry import TelemetryConfig

#: FastAPI would record the texts of exceptions and, told by an environment variable, export them.
TELEMETRY_OFF: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
