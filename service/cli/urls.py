"""How the command line writes addresses."""

from __future__ import annotations


def in_url(host: str) -> str:
    """Return a host as it is written in a URL."""
    return f"[{host}]" if ":" in host else host
