"""Puts together what the metrics tell of an open service."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.errors import Unavailable
from service.jobs.survey import VERIFIED, Survey
from service.observability.figures import Values
from service.observability.metrics import FIGURES, LLM_USE
from service.observability.release import release
from service.settings import Settings
from service.storage.quarantine import Quarantine
from service.storage.tasks import TaskState

if TYPE_CHECKING:
    from service.wiring import Installation, Services

#: What a call of the LLM ends with when the LLM, and not what it answered, was the trouble.
_LLM_AWAY: Final = frozenset({"llm_unavailable", "llm_rate_limited", "llm_rejected"})


def watch(services: Services, stack: ExitStack) -> None:
    """Look at how everything stands, in the background, until the stack closes."""
    installation, chosen = services.installation, services.settings.metrics
    count_llm_use(services.settings)
    survey = Survey(
        installation.database,
        installation.tenants,
        services.outbox,
        installation.tasks,
        Quarantine(installation.keyring, installation.record),
        services.index,
        FIGURES,
        parts=lambda: {(part.name,): float(part.state == "ok") for part in services.readiness() if part.state != "off"},
        llm=lambda: _llm_up(services),
        works=lambda: bool(services.keepers),
        interval=chosen.interval,
        tenants_a_look=chosen.tenants_a_look,
    )
    FIGURES.ask("memvault_build_info", lambda: {(release(),): 1.0})
    FIGURES.ask(
        "memvault_pool_connections",
        lambda: {(state,): float(count) for state, count in installation.database.pool().items()},
    )
    folder = services.settings.data_dir
    FIGURES.ask("memvault_data_free_bytes", lambda: _volume(folder, "free"))
    FIGURES.ask("memvault_data_size_bytes", lambda: _volume(folder, "total"))
    survey.start()
    stack.callback(survey.stop)


def count_llm_use(settings: Settings) -> None:
    """Say how the use of the LLM is counted in this process."""
    LLM_USE.configure(
        tenants=settings.metrics.tenants, input_cost=settings.llm.input_cost, output_cost=settings.llm.output_cost
    )


def note_verification(installation: Installation, *, ok: bool) -> None:
    """Keep how the verification of the whole trail ended, for the metrics."""
    try:
        installation.tasks.note(VERIFIED, TaskState.SUCCEEDED if ok else TaskState.FAILED)
    except Unavailable:
        # The verification itself has its outcome; that it could not be noted shows as one that is overdue.
        return


def _llm_up(services: Services) -> bool | None:
    state, _ = services.engine.state()
    return None if state == "off" else state == "ok" and services.engine.trouble() not in _LLM_AWAY


def _volume(folder: Path, what: str) -> Values:
    return {(): float(getattr(shutil.disk_usage(folder), what))} if folder.exists() else {}
