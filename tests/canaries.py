"""What must be in no log of any test: keys, and texts and names that tests plant. A run that finds one fails."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Final

import pytest

from service.observability.logs import _ALLOWED_EXTRAS

#: Secrets as they are minted, what tests call a canary, and what the attacks call the victim's people and facts.
PATTERNS: Final = re.compile(
    r"mv_[A-Za-z0-9_-]{40,}|zoe-[0-9a-f]{8}|Likes tea with lemon|(?<![/\w.\[])[\w-]*canary(?![\w./-]*[/\]])",
    re.IGNORECASE,
)
_FOUND: list[str] = []
_SEEN = {"records": 0, "texts": 0}


def leaks_in(text: str) -> list[str]:
    """Return the canaries in a text."""
    return PATTERNS.findall(text)


def check_text(where: str, text: str) -> None:
    """Note the canaries in what a process wrote, to fail the test that is running."""
    _SEEN["texts"] += 1
    _FOUND.extend(f"{where}: {one!r}" for one in leaks_in(text))


class Watch(logging.Handler):
    """Reads every record as the service would write it: its message and the extras that pass."""

    def emit(self, record: logging.LogRecord) -> None:
        """Look for canaries."""
        _SEEN["records"] += 1
        extras = {name: record.__dict__[name] for name in _ALLOWED_EXTRAS if name in record.__dict__}
        for one in leaks_in(f"{record.getMessage()} {extras}"):
            _FOUND.append(f"a record of {record.name}: {one!r}")


@pytest.fixture(scope="session", autouse=True)
def watched_logs() -> Iterator[None]:
    """Watch all logs of the run, those of threads that outlive their test included."""
    watch = Watch(level=logging.NOTSET)
    logging.getLogger().addHandler(watch)
    # As the service logs by default: lines that are never made cannot be looked at.
    ours = logging.getLogger("memvault")
    before = ours.level
    ours.setLevel(logging.INFO)
    yield
    ours.setLevel(before)
    logging.getLogger().removeHandler(watch)
    assert not _FOUND, f"content or secrets in logs: {_FOUND[:10]}"


@pytest.fixture(autouse=True)
def no_canary_in_a_log(request: pytest.FixtureRequest, watched_logs: None) -> Iterator[None]:
    """Fail a test in which content or a secret got into a log."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    # A test that sets logs up as the service does has replaced all handlers by one that writes to its captured output,
    # which is closed after it.
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler and handler not in before:
            root.removeHandler(handler)
            root.setLevel(level)
    if not any(isinstance(one, Watch) for one in root.handlers):
        root.addHandler(Watch(level=logging.NOTSET))
    found, _FOUND[:] = list(_FOUND), []
    assert not found, f"content or secrets in logs: {found[:10]}"
