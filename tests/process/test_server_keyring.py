"""An installation whose keyring is in a database of its own: migrated, served, erased in, backed up and restored."""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import ExitStack

import pytest
import yaml

from tests.conftest import Postgres, fresh_database
from tests.process.fixtures import MakeMemvault
from tests.process.memvault import add, listed
from tests.process.test_server_backup import KEY, Place, backup_role, with_role  # noqa: F401 - a fixture

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def chosen(place: Place, url: str, wrapping_key: str) -> None:
    """Name the keyring's database in the configuration."""
    settings = yaml.safe_load(place.config.read_text())
    settings["keyring"] = {"url": url, "wrapping_key": wrapping_key}
    settings["erasure"] = {"physical_delay": 0}
    place.config.write_text(yaml.safe_dump(settings))


def test_the_keys_live_in_a_database_of_their_own_and_move_with_the_backup(
    make_memvault: MakeMemvault,
    database: Postgres,
    postgres: Postgres,
    backup_role: tuple[str, str],  # noqa: F811
) -> None:
    wrapping_key = b64encode(os.urandom(32)).decode()
    with ExitStack() as stack:
        ours, theirs, empty = (stack.enter_context(fresh_database(postgres, empty=True)) for _ in range(3))
        source = Place(make_memvault(MEMVAULT_BOOTSTRAP_KEY=KEY), database)
        source.set(source.signing, backup_url=with_role(database.urls["url"], *backup_role))
        chosen(source, ours.urls["owner_url"], wrapping_key)
        assert source.json("migrate")["keyring"] == 1
        source.start()
        with source.memvault.client(KEY) as client:
            add(client, "alice keeps bees", user="alice")
            add(client, "bob keeps goats", user="bob")
            before = listed(client, user="alice")
            assert client.get("/readyz").json()["parts"]["keyring"]["status"] == "ok"
        data_dir = source.memvault.data_dir
        assert not (data_dir / "keys").exists()
        assert not (data_dir / "tombstones").exists()

        archive = source.memvault.place / "archive"
        source.json("backup", "--out", str(archive))
        held = b"".join(path.read_bytes() for path in archive.rglob("*") if path.is_file())
        assert wrapping_key.encode() not in held
        assert sorted(path.name for path in (archive / "keyring").iterdir()) == ["keyring.tar", "manifest.json"]
        receipt = source.json("erase", "--tenant", "default", "--user", "bob", "--wait")["receipt"]["receipt"]
        assert receipt["checked"]["key"] == "destroyed"
        assert receipt["physical"]["keyring"] == {"state": "done"}
        assert any("keyring's database" in one["what"] for one in receipt["remains"])
        source.memvault.stop()

        # Elsewhere, with another record and another, empty database of keys. Bob is back, as in every restored backup …
        target = Place(make_memvault(MEMVAULT_BOOTSTRAP_KEY=KEY), empty)
        target.set(source.signing)
        chosen(target, theirs.urls["owner_url"], wrapping_key)
        assert target.json("restore", str(archive))["memories"] == 2
        # … but not with the present keys: there his is destroyed, whatever the backup of them says.
        chosen(target, ours.urls["owner_url"], wrapping_key)
        target.start()
        with target.memvault.client(KEY) as client:
            assert listed(client, user="alice") == before
            assert listed(client, user="bob") == {}
        target.memvault.stop()
