"""Puts together what asks the language model about facts that changed, for workers and for the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from service.engine import Engine, refuse_environment
from service.memories.changed_facts import ChangedFacts
from service.wiring.adapters import engine_home, llm_settings

if TYPE_CHECKING:
    from service.wiring import Installation


def open_changed(installation: Installation, engine: Engine | None = None) -> ChangedFacts | None:
    """Return what asks, with an engine of its own where none is given; None without an LLM, or when nothing is asked.

    Mem0 is imported at the first question.

    Raises:
        ConfigurationError: when the environment would send the questions elsewhere.
    """
    settings = installation.settings
    llm = llm_settings(settings.llm)
    if llm is None or not settings.duplicates.questions:
        return None
    if engine is None:
        refuse_environment(os.environ, llm)
        engine = Engine(llm, None, home=engine_home(settings))
    return ChangedFacts(
        installation.database,
        installation.record,
        installation.subjects,
        installation.trail,
        installation.quotas,
        engine,
        questions=settings.duplicates.questions,
        wait=settings.llm.timeout + 30,
    )
