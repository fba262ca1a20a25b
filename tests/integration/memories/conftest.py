"""Fixtures of the tests of memories."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.llm.scripted import ScriptedLLM


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """A scripted LLM over HTTP."""
    with ScriptedLLM() as scripted:
        yield scripted
