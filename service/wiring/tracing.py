"""Puts traces into what was built, where a collector is configured; elsewhere nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Sized
from contextlib import ExitStack
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from service.errors import ConfigurationError
from service.observability import tracing
from service.observability.release import release
from service.observability.tracing import Attribute
from service.scope import Caller, Scope
from service.settings import Settings
from service.settings.watching import headers_of

if TYPE_CHECKING:
    from service.wiring import Services

_T = TypeVar("_T")
#: The actions of the faces, by their names in `Services`.
_ACTIONS: Final = (
    "memories", "adds", "interactions", "batches", "events", "entities", "erasures", "exports", "projections",
    "imports", "projects", "reviews", "feedback", "summaries", "keys", "key_changes", "identities", "webhooks",
)  # fmt: skip
#: Spans that wait are delivered this often.
_EVERY_MILLIS: Final = 2000.0


def open_tracing(settings: Settings, stack: ExitStack) -> None:
    """Begin to make spans until the stack closes, where `telemetry.otlp_endpoint` is set.

    Raises:
        ConfigurationError: when the certificates of `telemetry.ca_file` cannot be read.
    """
    chosen = settings.telemetry
    url = chosen.traces_url
    if url is None or tracing.active() is not None:
        return
    # Here and not above: where traces are off, nothing of OpenTelemetry's SDK is loaded.
    from service.observability.spans import Collector, Spans

    headers = {} if chosen.headers is None else headers_of(chosen.headers) or {}
    try:
        collector = Collector(url, headers, None if chosen.ca_file is None else str(chosen.ca_file))
    except OSError as error:
        raise ConfigurationError(f"telemetry.ca_file {chosen.ca_file}: cannot be read ({error.strerror})") from None
    spans = Spans(
        collector,
        service_name=chosen.service_name,
        release=release(),
        sample_ratio=chosen.sample_ratio,
        every_millis=_EVERY_MILLIS,
    )
    stack.callback(spans.close)
    tracing.switch(spans)
    stack.callback(tracing.switch, None)


def traced(thing: _T, name: str) -> _T:
    """Return a thing whose public methods are spans `name.method`; the thing itself while traces are off."""
    return thing if tracing.active() is None else cast(_T, _Traced(thing, name))


def traced_index(index: _T) -> _T:
    """Return an index whose calls are spans, those of one tenant's part of it too."""
    return index if tracing.active() is None else cast(_T, _TracedIndex(index, "index"))


def traced_actions(services: Services) -> Services:
    """Return services whose actions are spans, with the ids of request and tenant."""
    if tracing.active() is None:
        return services
    return replace(services, **{name: traced(getattr(services, name), name) for name in _ACTIONS})


class _Traced:
    """Passes everything on, and opens a span around each call of a public method."""

    def __init__(self, thing: Any, name: str) -> None:
        self._thing = thing
        self._name = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        if name.startswith("_") or not callable(found) or isinstance(found, type):
            return found
        spanned = _spanned(found, f"{self._name}.{name}")
        # From the next call on it is found without asking.
        self.__dict__[name] = spanned
        return spanned


class _TracedIndex(_Traced):
    def of(self, scope: Scope) -> Any:
        """Return the traced part of a tenant."""
        return _Traced(self._thing.of(scope), "index")

    def rebuild(self) -> Any:
        """Not traced: it is a block of many minutes."""
        return self._thing.rebuild()


def _spanned(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    kind = "client" if name.startswith("index.") else "internal"

    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        with tracing.span(name, kind, _who(arguments)) as opened:
            result = method(*arguments, **named)
            if opened is not None and isinstance(result, Sized) and not isinstance(result, str | bytes):
                opened.set_attribute("memvault.count", len(result))
            return result

    return call


def _who(arguments: tuple[Any, ...]) -> dict[str, Attribute]:
    """Return the ids of the request and the tenant of a call, and nothing else of what it was given."""
    for one in arguments[:2]:
        if isinstance(one, Caller):
            return {"memvault.request_id": one.request_id, "memvault.tenant_id": str(one.principal.tenant_id)}
        if isinstance(one, Scope):
            return {"memvault.tenant_id": str(one.tenant_id)}
    return {}
