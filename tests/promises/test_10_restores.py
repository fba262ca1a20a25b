"""A database that goes back to an earlier state: what was erased and revoked after it stays so."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import Memvault, add, eventually, listed

pytestmark = pytest.mark.promises


def lived_in(memvault: Memvault) -> dict[str, Any]:
    """Serve, and leave a person who will be erased, one who stays, and a key that will be revoked."""
    memvault.start()
    with memvault.client() as client:
        add(client, "alice keeps bees", user="alice")
        add(client, "bob keeps goats", user="bob")
        add(client, "bob and alice met", user="bob", agent_id="helper")
    return dict(memvault.json("key", "create", "--tenant", "default", "--role", "admin"))


def forget_and_go_on(memvault: Memvault, key: dict[str, Any]) -> None:
    """Erase the person, revoke the key, and write something that the restore will lose."""
    with memvault.client() as client:
        assert client.delete("/v2/entities/user/alice/").status_code == 200
        add(client, "carol came later", user="carol")
    memvault.json("key", "revoke", key["key_id"], "--tenant", "default")
    officer = memvault.json(
        *("key", "create", "--tenant", "default", "--role", "compliance_officer", "--owner", "ada@example.org")
    )
    with memvault.client(officer["api_key"]) as client:
        placed = client.post("/v1/holds/", json={"name": "case-1", "reason": "litigation", "user_id": "bob"})
        assert placed.status_code in (200, 201), placed.text
    sealed = memvault.json("audit", "checkpoint")
    assert sealed["state"] == "ok"


def holds_what_it_should(memvault: Memvault, key: dict[str, Any], *, carol: bool) -> None:
    """Check, with the first requests that are answered, that nobody is back and everybody else is."""
    with memvault.client(key["api_key"]) as revoked:
        assert revoked.get("/v1/ping/").status_code == 401
    with memvault.client() as client:
        assert listed(client, user="alice") == {}
        assert set(listed(client, user="bob").values()) == {"bob keeps goats", "bob and alice met"}
        assert bool(listed(client, user="carol")) is carol
        assert "alice" not in client.get("/v1/entities/").text
        # The hold that came after the backup binds again.
        for memory_id in listed(client, user="bob"):
            refused = client.delete(f"/v1/memories/{memory_id}/")
            assert (refused.status_code, refused.json()["code"]) == (409, "legal_hold")
        hits = eventually(lambda: found(client), seconds=60)
        assert {hit["memory"] for hit in hits} == {"bob keeps goats", "bob and alice met"}
    with psycopg.connect(memvault.superuser_dsn()) as connection:
        subjects = connection.execute("SELECT count(*) FROM subjects WHERE kind = 'user'").fetchone()
    assert subjects == (2 if carol else 1,)


def found(client: httpx.Client) -> list[Any] | None:
    """What a search finds once the index is whole, or None."""
    answer = client.post(
        "/v3/memories/search/", json={"query": "animals", "filters": {"user_id": "bob"}, "threshold": 0}
    )
    return answer.json()["results"] if answer.status_code == 200 and len(answer.json()["results"]) == 2 else None


def verified(memvault: Memvault) -> dict[str, Any]:
    """The report of a verification of the trail once what was just written is sealed."""
    memvault.json("audit", "checkpoint")
    report: dict[str, Any] = memvault.json("audit", "verify")
    return report


def copied(source: Path, target: Path) -> None:
    """Copy a folder with its owners and modes, as whoever copies a cluster does."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=60)


@pytest.mark.timeout(900)
def test_an_older_postgres_folder_is_brought_up_before_the_first_request(memvault: Memvault, tmp_path: Path) -> None:
    """Restoring an older backup, also a managed point-in-time restore that never calls our tools, applies later
    erasures and holds again before the first request is served.
    """
    key = lived_in(memvault)
    memvault.stop()
    copied(memvault.data_dir / "postgres", memvault.place / "older")
    memvault.start()
    forget_and_go_on(memvault, key)
    memvault.stop()
    shutil.rmtree(memvault.data_dir / "postgres")
    copied(memvault.place / "older", memvault.data_dir / "postgres")

    memvault.start()
    holds_what_it_should(memvault, key, carol=False)
    report = verified(memvault)
    assert report["ok"], report
    assert len(report["restored"]) == 1
    assert report["restored"][0]["lost_rows"] > 0
    # A restart after it finds nothing more to do.
    memvault.stop()
    memvault.start()
    assert len(verified(memvault)["restored"]) == 1
    memvault.stop()


@pytest.mark.timeout(900)
def test_a_backup_is_restored_in_its_place_and_elsewhere(make_memvault: MakeMemvault) -> None:
    """Backup and restore, while the service runs and without: what was erased after the backup stays erased, and what
    the keyring's archive of a later backup lacks cannot be read in the data of an older one.
    """
    memvault = make_memvault()
    key = lived_in(memvault)
    older = memvault.place / "older"
    made = memvault.json("backup", "--out", str(older))
    assert made["data_bytes"] > 0
    assert made["keyring_files"] >= 4
    assert {path.stat().st_mode & 0o077 for path in older.rglob("*")} == {0}
    forget_and_go_on(memvault, key)
    newer = memvault.place / "newer"
    memvault.json("backup", "--out", str(newer))

    refused = memvault.run("restore", str(older), "--replace")
    assert refused.returncode != 0
    assert "memvault: " in refused.stderr
    memvault.stop()
    refused = memvault.run("restore", str(older))
    assert (refused.returncode, "--replace" in refused.stderr) == (1, True)

    restored = memvault.json("restore", str(older), "--replace")
    assert (restored["memories"], restored["applied"], restored["tombstones"]) == (2, 3, 0)
    assert restored["epoch"] is not None
    memvault.start()
    holds_what_it_should(memvault, key, carol=False)
    assert verified(memvault)["ok"]
    memvault.stop()

    # Elsewhere, from the older data and the newer keyring: Alice's key is destroyed in it, and her erasure known.
    other = make_memvault()
    other.json("restore", str(older), "--keyring", str(newer / "keyring"))
    other.start()
    with other.client(memvault.credentials["api_key"]) as client:
        assert listed(client, user="alice") == {}
        assert set(listed(client, user="bob").values()) == {"bob keeps goats", "bob and alice met"}
    with other.client(key["api_key"]) as client:
        assert client.get("/v1/ping/").status_code == 401
    # What was done again stands in the trail behind all that the dump has, though its cluster counts anew.
    report = verified(other)
    assert report["ok"], report
    assert (report["unverified"]["rows"], len(report["restored"])) == (0, 1)
    other.stop()

    # And a backup that was tampered with touches nothing.
    third = make_memvault()
    dump = newer / "data" / "database.dump"
    dump.write_bytes(dump.read_bytes()[:-1] + b"x")
    refused = third.run("restore", str(newer))
    assert (refused.returncode, "checksum" in refused.stderr) == (2, True)
    assert not (third.data_dir / "postgres").exists()
    assert not (third.data_dir / "keys").exists()
    manifest = json.loads((newer / "data" / "manifest.json").read_text())
    assert manifest["kind"] == "data"
