"""OpenTelemetry traces: off, and then nothing of it is even imported, unless the settings name a collector.

Spans hold ids, counts, times and kinds of errors. They never hold text, names of users, queries, parameters of SQL or
addresses. No environment variable of OpenTelemetry decides where they go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from opentelemetry.context import Context

#: What an attribute of a span may be.
Attribute = str | int | float | bool


class Tracing(Protocol):
    """What makes spans. See `service.observability.spans`, the one that does."""

    def span(
        self, name: str, kind: str, attributes: Mapping[str, Attribute], parent: Context | None
    ) -> AbstractContextManager[Any]:
        """Open a span for a block, below `parent`, else below the one that is open here."""
        ...

    def parent(self, traceparent: str | None) -> Context | None:
        """Return the context that a `traceparent` header names."""
        ...

    def traceparent(self) -> str | None:
        """Return the header that names the span that is open here."""
        ...


@dataclass(slots=True)
class _State:
    tracing: Tracing | None = None


_state: Final = _State()
_OFF: Final = nullcontext()


def active() -> Tracing | None:
    """Return what makes spans, or None while traces are off."""
    return _state.tracing


def switch(tracing: Tracing | None) -> None:
    """Begin to make spans, or end it."""
    _state.tracing = tracing


def span(name: str, kind: str = "internal", attributes: Mapping[str, Attribute] | None = None) -> Any:
    """Open a span for a block; it yields the span, or None while traces are off, which costs nothing then."""
    tracing = _state.tracing
    return _OFF if tracing is None else tracing.span(name, kind, attributes or {}, None)


@contextmanager
def continued(name: str, kind: str, traceparent: str | None, attributes: Mapping[str, Attribute]) -> Iterator[Any]:
    """Open a span below the one that another process named."""
    tracing = _state.tracing
    if tracing is None:
        yield None
        return
    with tracing.span(name, kind, attributes, tracing.parent(traceparent)) as opened:
        yield opened
