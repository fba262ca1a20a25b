"""The fixtures of the promises: services in the test's process, served installations, and the scripted LLM."""

from tests.llm.fixtures import llm
from tests.process.fixtures import make_memvault, memvault, served, written_model
from tests.promises.faces import connect

__all__ = ["connect", "llm", "make_memvault", "memvault", "served", "written_model"]
