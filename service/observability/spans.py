"""Makes spans and sends them to an OTLP/HTTP collector. Imported only where `telemetry.otlp_endpoint` is set."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.errors import MemvaultError
from service.observability.metrics import SPANS
from service.observability.tracing import Attribute

#: Seconds that one delivery may take, and that the last one may take at the end.
_DELIVERY_SECONDS: Final = 5.0
_QUEUE: Final = 8192
_BATCH: Final = 512
_EVERY_MILLIS: Final = 2000.0
#: All that an environment variable would decide otherwise.
_LIMITS: Final = SpanLimits(
    max_attributes=32,
    max_events=0,
    max_links=8,
    max_event_attributes=0,
    max_link_attributes=0,
    max_attribute_length=256,
    max_span_attribute_length=256,
)
_KINDS: Final = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "consumer": SpanKind.CONSUMER}
_log: Final = logging.getLogger("memvault.traces")

# What it would log repeats answers of the collector; what is worth telling is told here, once.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


class Spans:
    """See `service.observability.tracing.Tracing`."""

    def __init__(
        self, exporter: SpanExporter, *, service_name: str, release: str, sample_ratio: float, every_millis: float
    ) -> None:
        ratio = TraceIdRatioBased(sample_ratio)
        # A client may ask that its trace is kept; how many are is decided here, by the trace's id.
        sampler = ParentBased(ratio, remote_parent_sampled=ratio, remote_parent_not_sampled=ALWAYS_OFF)
        self._provider = TracerProvider(
            sampler=sampler,
            resource=Resource({"service.name": service_name, "service.version": release}),
            shutdown_on_exit=False,
            span_limits=_LIMITS,
            meter_provider=NoOpMeterProvider(),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=_QUEUE,
                schedule_delay_millis=every_millis,
                max_export_batch_size=_BATCH,
                export_timeout_millis=_DELIVERY_SECONDS * 1000,
                meter_provider=NoOpMeterProvider(),
            )
        )
        self._tracer = self._provider.get_tracer("memvault", release)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self, name: str, kind: str, attributes: Mapping[str, Attribute], parent: Context | None
    ) -> Iterator[trace.Span | None]:
        """See `Tracing`. An error is told by its kind and nothing else."""
        if parent is None and not trace.get_current_span().get_span_context().is_valid:
            # Work that no request and no job asked for: the threads that look at the stores all the time.
            yield None
            return
        opened = self._tracer.start_span(name, parent, _KINDS.get(kind, SpanKind.INTERNAL), dict(attributes))
        try:
            with trace.use_span(opened, record_exception=False, set_status_on_exception=False):
                yield opened
        except BaseException as error:
            opened.set_attribute("error.type", error.code if isinstance(error, MemvaultError) else type(error).__name__)
            if not isinstance(error, MemvaultError) or error.status >= 500:
                opened.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            opened.end()

    def parent(self, traceparent: str | None) -> Context | None:
        """See `Tracing`. `tracestate` is another's and is not taken over."""
        # An empty context, so that what does not name a parent begins a trace of its own.
        return self._propagator.extract({} if traceparent is None else {"traceparent": traceparent}, Context())

    def traceparent(self) -> str | None:
        """See `Tracing`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    def flush(self) -> None:
        """Deliver what is there."""
        self._provider.force_flush()

    def close(self) -> None:
        """Deliver what is there, within a few seconds, and end."""
        ending = threading.Thread(target=self._provider.shutdown, name="memvault-traces-end", daemon=True)
        ending.start()
        ending.join(_DELIVERY_SECONDS + 1)


class Collector(SpanExporter):
    """Posts spans to a collector by OTLP/HTTP. What it does not take is dropped and counted: a trace is no record.

    The library's own exporter would take headers, certificates and proxies from the environment.
    """

    def __init__(self, url: str, headers: Mapping[str, str], ca_file: str | None) -> None:
        self._url = url
        self._ended = False
        self._well = True
        self._client = httpx.Client(
            headers={**headers, "Content-Type": "application/x-protobuf"},
            verify=_trusting(ca_file),
            timeout=_DELIVERY_SECONDS,
            trust_env=False,
            follow_redirects=False,
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver some spans; never raises."""
        trouble = "ended"
        try:
            if not self._ended:
                answer = self._client.post(self._url, content=encode_spans(spans).SerializeToString())
                trouble = "" if answer.is_success else f"answered {answer.status_code}"
        except Exception as error:
            trouble = type(error).__name__
        SPANS.labels("dropped" if trouble else "exported").inc(len(spans))
        if trouble and self._well and not self._ended:
            _log.warning("the collector takes no spans; they are dropped", extra={"error": trouble})
        self._well = not trouble
        return SpanExportResult.FAILURE if trouble else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """End."""
        self._ended = True
        self._client.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return True


def _trusting(ca_file: str | None) -> Any:
    if ca_file is None:
        return True
    import ssl

    return ssl.create_default_context(cafile=ca_file)
