"""Fixtures of exports and imports."""

from tests.llm.fixtures import llm

__all__ = ["llm"]
