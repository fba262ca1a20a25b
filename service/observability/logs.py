"""Structured logs: names, counts, ids and durations. Memory text, metadata and user ids never get here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import structlog

#: What a log line of our own may carry beside its message. Anything else is dropped, so that a careless `extra` cannot
#: put content into a log.
_ALLOWED_EXTRAS: Final = (
    "error", "memories", "seconds", "request_id", "method", "route", "status", "tenant", "event", "task", "count",
)  # fmt: skip


#: What a line gets from what it is about.
_CARRIED: Final = ("request_id", "tenant", "task")
#: Shared by all threads and tasks of one request or job; the mapping is filled in as things become known.
_about: Final[ContextVar[MutableMapping[str, Any] | None]] = ContextVar("memvault_log_about", default=None)


def configure_logs(*, level: str, format: str) -> None:
    """Send all logs of the process to standard error, as lines for people (`console`) or as JSON."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(allow=_ALLOWED_EXTRAS),
        _add_what_it_is_about,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _only_the_kind_of_an_exception,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("memvault").setLevel(level.upper())
    # Of two errors in one round trip the driver raises one and warns of the other in Postgres's words, which may quote
    # rows. Those of its pool are about connections.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    logging.getLogger("psycopg.pool").setLevel(logging.WARNING)


@contextmanager
def about(ids: MutableMapping[str, Any]) -> Iterator[None]:
    """Give every log line of the block the request id, the tenant and the task that `ids` has by then."""
    token = _about.set(ids)
    try:
        yield
    finally:
        _about.reset(token)


def tell(**ids: str) -> None:
    """Add to what the log lines of the block that is under way carry."""
    known = _about.get()
    if known is not None:
        known.update(ids)


def _add_what_it_is_about(
    logger: logging.Logger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    known = _about.get()
    if known is not None:
        for name in _CARRIED:
            value = known.get(name)
            if value is not None and event.get(name) is None:
                event[name] = str(value)
    return event


def _only_the_kind_of_an_exception(
    logger: logging.Logger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Replace a traceback by the exception's kind and place: its message and its locals may hold content."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if info and info[0] is not None:
        trace = info[2]
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        event["exception"] = info[0].__name__
        if trace is not None:
            event["at"] = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
    return event
