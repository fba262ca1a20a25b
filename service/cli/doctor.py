"""`memvault doctor`: looks at every part of the installation and says in plain words what is wrong and what to do."""

from __future__ import annotations

import json as json_
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import httpx

from service import wiring
from service.cli.options import Config, DataDir, Json, open_migrated, settings_from, show
from service.engine import refuse_environment
from service.errors import MemvaultError
from service.settings import Settings
from service.wiring import Part

_TIMEOUT: Final = 3.0


def doctor(config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Check the installation; exit code 1 when something needed is wrong."""
    settings = settings_from(config, data_dir)
    parts = list(_examined(settings))
    healthy = not any(part.state == "failed" for part in parts)
    document = {
        "healthy": healthy,
        "parts": [{"name": part.name, "state": part.state, "reason": part.reason} for part in parts],
    }
    lines = [f"{part.state:<8}  {part.name:<12}  {part.reason or ''}".rstrip() for part in parts]
    show(document, as_json=json, text="\n".join(lines))
    if not healthy:
        raise SystemExit(1)


def _examined(settings: Settings) -> Iterator[Part]:
    yield _folder(settings.data_dir, settings.keys_folder)
    try:
        refuse_environment(os.environ, wiring.llm_settings(settings.llm))
        yield Part("environment", "ok")
    except MemvaultError as error:
        yield Part("environment", "failed", error.detail)
    with ExitStack() as stack:
        try:
            installation = open_migrated(settings, stack)
            tenants = installation.tenants.list()
        except MemvaultError as error:
            yield Part("record", "failed", error.detail)
        else:
            waiting = wiring.count_outbox(installation)
            yield Part("record", "ok", f"{len(tenants)} tenants, {wiring.count_memories(installation)} memories")
            yield Part("outbox", "ok", f"{waiting} memories wait for the index" if waiting else None)
    if settings.llm.provider is None:
        yield Part("extraction", "off", f"no LLM is configured (llm.provider); infer=true: {settings.fallback.value}")
    else:
        yield Part("extraction", "ok", f"provider {settings.llm.provider}")
    yield _service(settings)


def _folder(folder: Path, keys: Path) -> Part:
    if not folder.exists():
        return Part("data folder", "off", f"{folder} is not there yet; `memvault serve` makes it")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Part("data folder", "failed", f"{folder} is not usable by this user: give it to the service's user")
    if keys.exists() and keys.stat().st_mode & 0o077:
        return Part("data folder", "failed", f"{keys} can be read by others: chmod 700 {keys}")
    return Part("data folder", "ok", str(folder.resolve()))


def _service(settings: Settings) -> Part:
    url = f"http://{settings.server.host}:{settings.server.port}"
    credentials = settings.data_dir / "credentials.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        url = str(json_.loads(credentials.read_text(encoding="utf-8"))["url"])
    try:
        answer = httpx.get(f"{url}/readyz", timeout=_TIMEOUT, trust_env=False)
    except httpx.HTTPError:
        return Part("service", "off", f"nothing answers at {url}; start it with `memvault serve`")
    state = "ok" if answer.status_code == httpx.codes.OK else "failed"
    return Part("service", state, f"{url}/readyz answers {answer.status_code}")
