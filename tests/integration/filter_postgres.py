"""A Postgres server for the tests of the filter compiler: the one fixture `postgres_dsn`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage.embedded import EmbeddedPostgres


@pytest.fixture(scope="module")
def postgres_dsn() -> Iterator[str]:
    """The connection string of a superuser on a new server, which is gone with its data at the end of the module."""
    place = Path(tempfile.mkdtemp(prefix="mv"))  # short, for the socket, and not inside pytest's private folder
    if os.geteuid() == 0:
        place.chmod(0o711)
    server = EmbeddedPostgres(place / "postgres", settings={"fsync": "off"})
    try:
        yield server.start().superuser_dsn()
    finally:
        server.stop()
        shutil.rmtree(place)
