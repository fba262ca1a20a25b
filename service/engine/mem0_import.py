"""Imports Mem0 so that it calls nobody, downloads nothing, says nothing, and leaves the process as it was."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import types
import warnings
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Final

from service.engine.errors import EngineFailed

VERSION: Final = "2.2.1"
"""The version whose private parts the seam leans on; `tests/unit/engine/test_seam.py` says which."""

ENTITIES_OFF: Final = (
    "Mem0's language entities need a spaCy model that would be downloaded at run time, so they are off; "
    "users, agents, apps and runs are not affected"
)

# Mem0 writes memory text at INFO and whole messages at WARNING, and errors with the exception's text. Nothing is lost
# by silencing it: whatever fails is recorded in the unit of work and raised.
_SILENCED: Final = logging.CRITICAL + 1
# These clients write request bodies, so prompts, at DEBUG.
_LLM_CLIENTS: Final = ("openai", "anthropic", "groq", "together", "litellm", "LiteLLM", "ollama")

_lock = threading.Lock()


def import_mem0(home: Path) -> None:
    """Import Mem0 with telemetry, downloads and logs off. `home` takes its config file. Safe to call again.

    Raises EngineFailed if another version is installed, if the folder cannot be written, or if telemetry is on (Mem0
    reads the switch at import, so someone imported it before).
    """
    with _lock:
        installed = metadata.version("mem0ai")
        if installed != VERSION:
            raise EngineFailed(
                f"mem0ai {installed} is installed and the engine fits {VERSION} only; install that version"
            )
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EngineFailed(f"the engine's folder cannot be made: {error.strerror}; check the data folder") from None
        os.environ["MEM0_TELEMETRY"] = "false"
        os.environ["MEM0_DIR"] = str(home)
        _import_and_restore()
        _refuse_telemetry()
        _silence_loggers()
        _switch_off_spacy()
        _take_md5_out_of_security()


def _import_and_restore() -> None:
    """Import Mem0 and undo what the import does to other people's loggers and to the warning filters."""
    levels = {name: logging.getLogger(name).level for name in ("urllib3", "posthog")}
    filters = list(warnings.filters)
    try:
        import_module("mem0.memory.main")
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        warnings.filters[:] = filters  # type: ignore[index]  # typed as a Sequence, is the live list
        with warnings.catch_warnings():  # leaving the block tells the warnings module that its filters changed
            pass


def _refuse_telemetry() -> None:
    telemetry: Any = import_module("mem0.memory.telemetry")
    clients = (telemetry.client_telemetry.posthog, telemetry._oss_telemetry_instance)
    if telemetry.MEM0_TELEMETRY is not False or any(client is not None for client in clients):
        raise EngineFailed(
            "Mem0's telemetry is on: Mem0 was imported before it could be switched off. Set MEM0_TELEMETRY=false "
            "in the environment of the process."
        )


def _silence_loggers() -> None:
    logging.getLogger("mem0").setLevel(_SILENCED)
    for name in _LLM_CLIENTS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _switch_off_spacy() -> None:
    """Mark both models as failed to load, Mem0's own state for "unavailable": the loaders then return at once."""
    models: Any = import_module("mem0.utils.spacy_models")
    models._load_failed_full = True
    models._load_failed_lemma = True


def _take_md5_out_of_security() -> None:
    """Let Mem0 use MD5 for looking up duplicates on machines where FIPS mode forbids it for security."""
    lenient: Any = types.ModuleType("hashlib")
    lenient.__dict__.update(vars(hashlib))
    lenient.md5 = lambda data=b"": hashlib.md5(data, usedforsecurity=False)
    for name in ("mem0.memory.main", "mem0.memory.utils"):
        import_module(name).__dict__["hashlib"] = lenient
