"""Spans of the statements that go to Postgres: what kind each is and how long it took, never its text or parameters."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext, ExecutionContext

from service.observability import tracing

_OPEN: Final = "memvault_span"
_VERBS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "SET", "LOCK", "CALL"})


def trace_statements(engine: Engine) -> None:
    """Make a span of each statement of an engine; to be called only where traces are on."""

    def before(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: ExecutionContext | None, many: bool
    ) -> None:
        verb = statement.lstrip()[:8].split(None, 1)[0].upper() if statement.strip() else ""
        verb = verb if verb in _VERBS else "OTHER"
        opened: AbstractContextManager[Any] = tracing.span(
            f"postgres {verb}", "client", {"db.system.name": "postgresql", "db.operation.name": verb}
        )
        opened.__enter__()
        connection.info[_OPEN] = opened

    def after(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: ExecutionContext | None, many: bool
    ) -> None:
        _end(connection)

    def failed(context: ExceptionContext) -> None:
        if context.connection is not None:
            _end(context.connection, context.original_exception)

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    event.listen(engine, "handle_error", failed)


def _end(connection: Any, error: BaseException | None = None) -> None:
    opened = connection.info.pop(_OPEN, None)
    if opened is None:
        return
    if error is None:
        opened.__exit__(None, None, None)
        return
    try:
        opened.__exit__(type(error), error, error.__traceback__)
    except BaseException:
        return
