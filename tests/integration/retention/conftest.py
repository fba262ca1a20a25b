"""What the tests of erasures share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Postgres


@pytest.fixture
def admin(database: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to the test's database."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        yield connection
