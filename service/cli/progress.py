"""Shows on standard error how far a long command is; nothing where its output is for a program."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def spinner(*, quiet: bool) -> Progress:
    """Return what tells in words what is being done, and since when; it is gone at the end."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet)


def bars(*, quiet: bool) -> Progress:
    """Return bars, each with how many are done of how many; they stay at the end."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True), disable=quiet)
