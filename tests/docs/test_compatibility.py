"""The tables of docs/compatibility.md say what the tests hold the clients to."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.docs.compatibility_table import of_commands, of_errors, of_methods
from tests.docs.pages import table

pytestmark = pytest.mark.unit

PAGE = "docs/compatibility.md"


@pytest.mark.parametrize(
    ("first_column", "rows"), [("method", of_methods()), ("command", of_commands()), ("status", of_errors())]
)
def test_tables(first_column: str, rows: Iterable[list[str]]) -> None:
    told = [list(row.values()) for row in table(PAGE, first_column)]
    assert told == list(rows), "run `python -m tests.docs.compatibility_table` and paste its rows"
