"""The archive of a keyring is whole whatever happens to its files while it is written."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from service.portability.archives import pack, unpack

pytestmark = pytest.mark.unit


def test_a_key_that_is_destroyed_while_it_is_packed_is_in_the_archive_as_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("a.key", "b.key", "c.key"):
        (folder / name).write_bytes(b"k" * 40)
    look = tarfile.TarFile.gettarinfo

    def destroyed_then(*given: Any, **named: Any) -> tarfile.TarInfo:
        found = look(*given, **named)
        if found.size == 40 and found.name.endswith("b.key"):
            (folder / ".b").write_bytes(b"destroyed\n")
            os.replace(folder / ".b", folder / "b.key")
        return found

    monkeypatch.setattr(tarfile.TarFile, "gettarinfo", destroyed_then)
    assert pack(tmp_path / "keys.tar", {"keys": folder}, progress=lambda _: None) == 3
    unpack(tmp_path / "keys.tar", tmp_path / "out")
    found = {path.name: path.read_bytes() for path in (tmp_path / "out" / "keys").iterdir()}
    assert found == {"a.key": b"k" * 40, "b.key": b"destroyed\n", "c.key": b"k" * 40}
