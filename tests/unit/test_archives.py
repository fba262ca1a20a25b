"""Archives of a backup: whole whatever happens to their files meanwhile, and refused where they are not."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from service.errors import ConfigurationError, Conflict
from service.portability.archives import DATA, KEYRING, finish, make_folder, pack, unpack, verified

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


@pytest.mark.parametrize("name", ["../evil", "keys/../../evil"])
def test_a_name_that_leads_out_of_the_folder_is_not_unpacked(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "keys.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(tarfile.FilterError):
        unpack(tmp_path / "keys.tar", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_only_whole_files_of_the_folder_itself_are_packed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "keys", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_bytes(b"of somebody else")
    (folder / "a.key").write_bytes(b"k")
    (folder / ".b.key").write_bytes(b"in the making")
    (folder / "link.key").symlink_to(elsewhere)
    assert pack(tmp_path / "keys.tar", {"keys": folder}, progress=lambda _: None) == 1
    with tarfile.open(tmp_path / "keys.tar") as archive:
        assert archive.getnames() == ["keys/a.key"]


def test_an_archive_is_only_as_good_as_each_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    make_folder(folder)
    with pytest.raises(ConfigurationError, match="unfinished"):
        verified(folder, DATA)
    for name in ("one", "two"):
        (folder / name).write_bytes(name.encode())
    finish(folder, DATA, {}, ["one", "two"])
    assert verified(folder, DATA).size == 6
    with pytest.raises(ConfigurationError, match="is no keyring archive"):
        verified(folder, KEYRING)
    with pytest.raises(Conflict, match="not empty"):
        make_folder(folder)
    for content in (b"twO", b"twos"):
        (folder / "two").write_bytes(content)
        with pytest.raises(ConfigurationError, match="two: is not what was written"):
            verified(folder, DATA)
