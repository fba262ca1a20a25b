"""`memvault mcp`: an MCP server for clients that start a local program; it forwards to a running service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from service.cli.options import Config, DataDir, settings_from
from service.cli.urls import in_url
from service.errors import ConfigurationError
from service.mcp.stdio import Service, endpoint, serve_stdio

_CREDENTIALS: Final = "credentials.json"


def mcp(
    url: Annotated[
        str | None,
        typer.Option(help="Address of the service. Default: the one in credentials.json, else that of the settings."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the API key. Default: credentials.json in the data folder.")
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Speak MCP on standard input and output, and forward to a running service, until the input ends."""
    settings = settings_from(config, data_dir)
    kept = settings.data_dir / _CREDENTIALS
    key: str | None
    if key_file is not None:
        key, key_from = _key_in(key_file), str(key_file)
    else:
        key, key_from = _kept(kept, "api_key"), str(kept)
    if key is None:
        raise ConfigurationError(
            f"no API key: {kept} is not there. Run the service once with 'memvault serve', which makes it, name its "
            "folder with --data-dir, or give a file with a key by --key-file"
        )
    address = url or _kept(kept, "url") or f"http://{in_url(settings.server.host)}:{settings.server.port}"
    serve_stdio(Service(endpoint(address), key, key_from))


def _key_in(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"--key-file {path}: cannot be read") from None
    if not key or not key.isascii() or any(character.isspace() for character in key):
        raise ConfigurationError(f"--key-file {path}: must hold one API key and nothing else")
    return key


def _kept(path: Path, name: str) -> str | None:
    """Return an entry of the credentials that the service left in its data folder, or None when it left none."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))[name]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path}: cannot be read, or is not what the service wrote") from None
    return str(entry)
