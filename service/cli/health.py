"""`memvault health`: asks the running service whether it is ready; the probe of a container, without shell or curl.

Imports little: it runs every few seconds, and importing all of Memvault takes seconds of a core.
"""

from __future__ import annotations

import http.client
import json as json_
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import typer

from service.cli.streams import put
from service.settings import load_settings

_TIMEOUT: Final = 5.0
_ALL: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def health(
    config: Annotated[Path | None, typer.Option("--config", help="A YAML file with settings.")] = None,
    host: Annotated[str | None, typer.Option(help="Where the service listens. Default: server.host")] = None,
    port: Annotated[int | None, typer.Option(help="Its port. Default: server.port")] = None,
) -> None:
    """Ask `/readyz`: exit code 0 when requests are served, else 1 with the reason."""
    server = load_settings(config=config, flags={"server": {"host": host, "port": port}}).server
    reason = _why_not(_ALL.get(server.host, server.host), server.port)
    if reason is not None:
        typer.echo(reason, err=True)
        raise SystemExit(1)
    put("ready")


def _why_not(host: str, port: int) -> str | None:
    """Return why the service is not ready, or None."""
    with closing(http.client.HTTPConnection(host, port, timeout=_TIMEOUT)) as connection:
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"nothing answers on {host} port {port} ({type(error).__name__})"
    if answer.status == http.client.OK:
        return None
    try:
        parts = json_.loads(body)["parts"]
        failed = [f"{name}: {part.get('reason') or part['status']}" for name, part in parts.items() if _holds_up(part)]
    except (ValueError, KeyError, TypeError, AttributeError):
        failed = []
    return f"/readyz answers {answer.status}" + (f" ({'; '.join(failed)})" if failed else "")


def _holds_up(part: dict[str, str]) -> bool:
    return part["status"] not in ("ok", "off")
