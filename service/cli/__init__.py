"""FACE command line: `memvault`, the installation's plane. Its credential is the database's, not a key."""

from __future__ import annotations

import sys

import typer

__all__ = ["main"]


def main() -> None:
    """Run a command; the probe without importing what the others need."""
    if sys.argv[1:2] == ["health"]:
        from service.cli.health import health
        from service.errors import ConfigurationError

        sys.argv = [f"{sys.argv[0]} health", *sys.argv[2:]]
        try:
            typer.run(health)
        except ConfigurationError as error:
            print(f"memvault: {error.detail}", file=sys.stderr)
            raise SystemExit(2) from None
        return
    from service.cli.app import main as run

    run()
