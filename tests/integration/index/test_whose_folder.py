"""Whose the index folder is: that of the data folder's owner, also after root had it; who may not use it is told so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from service.errors import ConfigurationError
from service.index.edge_folder import IndexFolder

pytestmark = pytest.mark.integration

_SOMEBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody")
def test_what_root_made_is_given_to_the_owner_of_the_data_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"of root")
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, _SOMEBODY, _SOMEBODY)
    folder = IndexFolder(data / "index", dimensions=4, model="none")
    generation = folder.new()
    (generation / "segments").mkdir(parents=True)
    (generation / "segments" / "points").write_bytes(b"points")
    folder.switch(generation, complete=True)
    (data / "index" / "link").symlink_to(elsewhere)
    os.link(elsewhere, data / "index" / "name")
    folder.close()

    own = [data / "index", *(path for path in (data / "index").rglob("*") if path.name != "name")]
    assert {path.name for path in own} >= {"lock", "current", "segments", "points"}
    assert {path.lstat().st_uid for path in own} == {_SOMEBODY}
    # Neither a link nor a second name leads to a file elsewhere.
    assert elsewhere.stat().st_uid == 0


def test_who_may_not_use_the_folder_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigurationError, match="cannot be used by this user") as told:
        IndexFolder(tmp_path / "index", dimensions=4, model="none")
    assert "made again from the record" in told.value.detail
