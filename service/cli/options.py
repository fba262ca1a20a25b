"""Options that commands share, and how they become settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.streams import put
from service.observability.logs import configure_logs
from service.settings import Settings, load_settings

Config = Annotated[Path | None, typer.Option("--config", help="A YAML file with settings.", show_default=False)]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the embedded stores and keys. Default: .memvault", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def settings_from(config: Path | None, data_dir: Path | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Load the settings and set the logs up by them."""
    settings = load_settings(config=config, flags={"data_dir": data_dir, **(flags or {})})
    configure_logs(level=settings.log.level, format=settings.log.format)
    return settings


def show(document: Any, *, as_json: bool, text: str) -> None:
    """Print the result of a command, for a program or for a person."""
    put(json.dumps(document, default=str) if as_json else text)
