"""Counts the attempts of all workers and prints their number at the end of a run."""

from __future__ import annotations

from typing import Any, Final

import pytest

ATTEMPTS: Final = "attack attempts"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many attempts were made, also when the tests ran in other processes."""
    counted = [
        count
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, count in report.user_properties
        if name == ATTEMPTS
    ]
    if counted:
        terminalreporter.write_line(f"isolation: {sum(counted):,} attempts in {len(counted)} tests crossed no line")
