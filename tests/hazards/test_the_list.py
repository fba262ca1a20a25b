"""The list of hazards names tests that exist."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.hazards import HAZARDS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


@cache
def names_in(file: str) -> frozenset[str]:
    """Return the names of the tests in a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("hazard", HAZARDS)
def test_a_hazard_has_its_tests(hazard: str) -> None:
    assert HAZARDS[hazard]
    for named in HAZARDS[hazard]:
        file, _, test = named.partition("::")
        assert test.startswith("test_")
        assert test in names_in(file), named
