"""The note that a restore has begun: who may open the data folder meanwhile, and after one that was cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import ConfigurationError, Conflict
from service.portability.unfinished import UnfinishedRestore, refuse_unfinished

pytestmark = pytest.mark.unit


def test_of_two_restores_at_once_the_second_is_refused(tmp_path: Path) -> None:
    first = UnfinishedRestore(tmp_path)
    assert not first.begin()
    with pytest.raises(Conflict, match="another restore is at work"):
        UnfinishedRestore(tmp_path).begin()
    with pytest.raises(ConfigurationError, match="`memvault restore` again"):
        refuse_unfinished(tmp_path)
    first.end()
    refuse_unfinished(tmp_path)
    assert not UnfinishedRestore(tmp_path).begin()


def test_one_that_was_cut_short_is_known_to_the_next(tmp_path: Path) -> None:
    # The lock went with its process.
    (tmp_path / "restore.unfinished").touch()
    with pytest.raises(ConfigurationError):
        refuse_unfinished(tmp_path)
    again = UnfinishedRestore(tmp_path)
    assert again.begin()
    again.end()
    refuse_unfinished(tmp_path)
