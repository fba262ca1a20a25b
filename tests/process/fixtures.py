"""Fixtures: installations that are served by processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.memvault import Memvault

MakeMemvault = Callable[..., Memvault]


@pytest.fixture(scope="session")
def written_model(model_folder: Path) -> Path:
    """The folder of the model with its graph written."""
    from service.embeddings.minilm import MiniLM

    MiniLM(model_folder, threads=1)
    return model_folder


@pytest.fixture
def make_memvault(written_model: Path) -> Iterator[MakeMemvault]:
    """Make installations that are not started yet; named arguments are environment variables."""
    with ExitStack() as stack:

        def make(**environ: str) -> Memvault:
            memvault = Memvault(written_model, **environ)
            stack.callback(memvault.remove)
            return memvault

        yield make


@pytest.fixture
def memvault(make_memvault: MakeMemvault) -> Memvault:
    """A fresh installation, not started yet."""
    return make_memvault()


@pytest.fixture(scope="module")
def served(written_model: Path) -> Iterator[Memvault]:
    """A running installation that the tests of one module share."""
    memvault = Memvault(written_model)
    try:
        yield memvault.start()
    finally:
        memvault.remove()
