"""Bringing in another embedding model, as the command line asks for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from service import wiring
from service.errors import MemvaultError
from service.settings.tree import Embeddings
from service.wiring import Services
from tests.llm.embeddings import ScriptedEmbeddings


def ask_for(services: Services, model: ScriptedEmbeddings) -> None:
    """Ask for a model as the command line does, whose settings name it."""
    settings = services.settings.model_copy(update={"embeddings": Embeddings(**model.settings)})
    wiring.ask_for(replace(services.installation, settings=settings), "openai")


@contextmanager
def changing_to(services: Services, model: ScriptedEmbeddings, *, held_at: int) -> Iterator[list[Any]]:
    """Bring a model in from a thread, held at a call of it for the block; lend what it ended with."""
    ask_for(services, model)
    before = len(model.calls)
    model.hold()
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(services.change.run())
        except MemvaultError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        model.wait_for_calls(before + held_at)
        yield ended
    finally:
        model.release()
        thread.join(60)
    assert not thread.is_alive()
