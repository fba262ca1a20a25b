"""The fixtures of the tests that start processes."""

from tests.process.fixtures import make_memvault, memvault, served, written_model

__all__ = ["make_memvault", "memvault", "served", "written_model"]
