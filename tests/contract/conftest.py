"""The fixtures of the tests that run Mem0."""

from tests.llm.fixtures import build, embedder, engine, llm, nothing_leaves

__all__ = ["build", "embedder", "engine", "llm", "nothing_leaves"]
