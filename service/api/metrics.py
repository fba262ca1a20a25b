"""Counts and durations of requests for Prometheus, by route template and not by path; and who may read the metrics."""

from __future__ import annotations

import hmac
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from pydantic import SecretStr

from service.observability.metrics import WORK

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RequestMetrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self, token: SecretStr | None = None) -> None:
        self._token = None if token is None else f"Bearer {token.get_secret_value()}".encode()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "memvault_http_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "memvault_http_request_seconds",
            "Seconds from the request's headers to the end of the answer.",
            ("route", "method"),
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def count(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; `status` is kept as its class (`2xx`)."""
        known = method if method in _METHODS else "OTHER"
        self._requests.labels(route, known, f"{status // 100}xx").inc()
        self._seconds.labels(route, known).observe(seconds)

    def may_be_read(self, authorization: str) -> bool:
        """Tell whether a request with this header may have the metrics: any, unless a token is set."""
        return self._token is None or hmac.compare_digest(authorization.encode(), self._token)

    def text(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self.registry) + generate_latest(WORK)
