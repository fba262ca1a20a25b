"""What gets into a log line: a fixed set of fields, and of an exception its kind and place only."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from service.observability.logs import configure_logs

pytestmark = pytest.mark.unit

CANARY = "canary-7f3b1c"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Give the root logger its handlers and levels back."""
    root, ours = logging.getLogger(), logging.getLogger("memvault")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:], root.level, ours.level = before[0], before[1], before[2]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was logged; standard output stays free for results."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_each_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", format="json")
    logging.getLogger("memvault.queue").info("two\nlines", extra={"count": 3, "route": "/v1/ping/"})
    (line,) = lines(capsys)
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["route"]) == ("two\nlines", "info", "/v1/ping/")
    assert entry["timestamp"].endswith("Z")


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_field_that_is_not_known_is_dropped(capsys: pytest.CaptureFixture[str], format: str) -> None:
    configure_logs(level="info", format=format)
    logging.getLogger("memvault").info("done", extra={"memory": CANARY, "user_id": CANARY, "seconds": 1.5})
    (line,) = lines(capsys)
    assert "seconds" in line
    assert CANARY not in line


@pytest.mark.parametrize("format", ["json", "console"])
def test_an_exception_is_told_by_its_kind_and_place(capsys: pytest.CaptureFixture[str], format: str) -> None:
    configure_logs(level="info", format=format)
    local = CANARY
    for name in ("memvault", "uvicorn.error"):
        try:
            try:
                raise KeyError(local)
            except KeyError as inner:
                raise ValueError(f"bad value {local}") from inner
        except ValueError:
            logging.getLogger(name).exception("it failed")
    logged = "\n".join(lines(capsys))
    assert CANARY not in logged
    assert logged.count("ValueError") == 2
    assert "test_logs.py:" in logged


def test_an_exception_without_a_traceback_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", format="json")
    logging.getLogger("memvault").error("one", exc_info=ValueError(CANARY))
    logging.getLogger("memvault").error("none", exc_info=True)
    first, second = (json.loads(line) for line in lines(capsys))
    assert first["exception"] == "ValueError"
    assert "exception" not in second


def test_others_are_heard_from_warnings_on_and_we_from_our_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="debug", format="json")
    for name in ("httpx", "memvault.index"):
        logging.getLogger(name).debug("debug of %s", name)
        logging.getLogger(name).warning("warning of %s", name)
    told = [json.loads(line)["event"] for line in lines(capsys)]
    assert told == ["warning of httpx", "debug of memvault.index", "warning of memvault.index"]
    configure_logs(level="error", format="json")
    logging.getLogger("memvault").warning("not now")
    assert lines(capsys) == []


def test_being_set_up_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", format="json")
    configure_logs(level="info", format="json")
    logging.getLogger("memvault").info("once")
    assert len(lines(capsys)) == 1


def test_a_line_of_the_queue_s_library_about_a_job_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    import service.queue.tasks  # noqa: F401 - silences it where it is used

    configure_logs(level="debug", format="json")
    logging.getLogger("procrastinate.worker").info("Starting job extract(tenant_id=%s)", CANARY)
    logging.getLogger("procrastinate.worker").warning("Job extract(tenant_id=%s) failed", CANARY)
    assert lines(capsys) == []
