"""The version of this release, as clients, traces and metrics are told it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """Return the version of this release; `unknown` in a checkout that was never installed."""
    try:
        return version("memvault")
    except PackageNotFoundError:
        return "unknown"
