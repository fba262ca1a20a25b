"""`memvault doctor`: looks at every part of the installation and says in plain words what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.examining import Finding, examine
from service.cli.options import Config, DataDir, Json, show
from service.errors import ConfigurationError, MemvaultError
from service.observability.logs import configure_logs
from service.settings import Settings, load_settings


def doctor(
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no LLM, issuer or other service outside.")] = False,
) -> None:
    """Check the installation; exit code 1 when something is wrong that needs mending."""
    settings = _settings(config, data_dir)
    if isinstance(settings, Finding):
        findings = [settings]
    else:
        # What is found is told once, by what this prints.
        configure_logs(level="error", format=settings.log.format)
        findings = list(examine(settings, offline=offline))
    healthy = not any(one.state == "failed" for one in findings)
    document = {
        "healthy": healthy,
        "parts": [
            {"name": one.name, "state": one.state, "reason": one.reason, "do": one.remedy, "where": one.where}
            for one in findings
        ],
    }
    show(document, as_json=json, text="\n".join(line for one in findings for line in _told(one)))
    if not healthy:
        raise SystemExit(1)


def _settings(config: Path | None, data_dir: Path | None) -> Settings | Finding:
    try:
        return load_settings(config=config, flags={"data_dir": data_dir})
    except ConfigurationError as error:
        return Finding("settings", "failed", error.detail, "correct that setting; docs/settings.md has them all", None)
    except MemvaultError as error:
        return Finding("settings", "failed", error.detail)


def _told(one: Finding) -> list[str]:
    lines = [f"{one.state:<8}  {one.name:<14}  {one.reason or ''}".rstrip()]
    if one.remedy is not None:
        lines.append(f"{'':<8}  {'':<14}  -> {one.remedy}")
    return lines
