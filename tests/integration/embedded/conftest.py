"""Fixtures: installations in short private folders, and other processes that use them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.storage.embedded import EmbeddedPostgres
from tests.integration.embedded.installations import FAST, Other, kill_cluster, new_place


@pytest.fixture
def place() -> Iterator[Path]:
    """A new data folder, enterable (not readable) by all if we are root, as an installation's is."""
    made = new_place()
    yield made
    kill_cluster(made / "postgres")
    shutil.rmtree(made)


@pytest.fixture
def folder(place: Path) -> Path:
    return place / "postgres"


@pytest.fixture(scope="session")
def made_cluster() -> Iterator[Path]:
    """A stopped installation to copy, so that not every test waits for initdb."""
    made = new_place()
    server = EmbeddedPostgres(made / "postgres", settings=FAST)
    server.start()
    server.stop()
    yield made / "postgres"
    shutil.rmtree(made)


@pytest.fixture
def cluster(folder: Path, made_cluster: Path) -> Path:
    """A stopped installation of the test's own."""
    subprocess.run(["cp", "-a", str(made_cluster), str(folder)], check=True)
    return folder


@pytest.fixture
def other() -> Iterator[Callable[..., Other]]:
    """Make other processes that are gone at the end of the test."""
    made: list[Other] = []

    def start(*args: Any, **options: Any) -> Other:
        made.append(Other(*args, **options))
        return made[-1]

    yield start
    for process in made:
        process.process.kill()
        process.close()
