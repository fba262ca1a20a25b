"""The rehearsal of a restore, and the commands of export and import, as people run them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import REPOSITORY, Memvault, add, command, eventually, listed, search

pytestmark = pytest.mark.integration


#: Object storage that does not answer: a rehearsal that asks it fails.
_BUCKET = {"MEMVAULT_AUDIT__S3__BUCKET": "trail", "MEMVAULT_AUDIT__S3__ENDPOINT": "http://127.0.0.1:1"}


def rehearse(memvault: Memvault, data_dir: Path, place: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the script as the page says."""
    return subprocess.run(
        [str(REPOSITORY / "docs" / "examples" / "rehearse-restore.sh"), str(data_dir), str(place)],
        env=memvault.environment(**environ),
        cwd=memvault.cwd,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.timeout(600)
def test_a_restore_is_rehearsed_beside_the_running_service(memvault: Memvault) -> None:
    checkpoints = memvault.place / "checkpoints"
    memvault.environ["MEMVAULT_AUDIT__CHECKPOINT_FOLDER"] = str(checkpoints)
    memvault.start()
    with memvault.client() as client:
        add(client, "a memory that must survive")
    place = memvault.place / "rehearsal"
    (script,) = command()
    done = rehearse(memvault, memvault.data_dir, place, MEMVAULT=script, **_BUCKET)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.endswith("the backup can be restored\n")
    assert "1 memories are back" in done.stdout
    assert not place.exists()
    # The trail of the running one is as if nothing had been.
    verified = memvault.json("audit", "verify", "--checkpoints", str(checkpoints))
    assert (verified["ok"], verified["restored"], verified["checkpoints"]["exported"] > 0) == (True, [], True)


def test_a_rehearsal_removes_nothing_that_was_there(memvault: Memvault) -> None:
    backups = memvault.place / "backups"
    backups.mkdir()
    (memvault.data_dir / "postgres").mkdir()
    kept = [memvault.data_dir / "postgres", backups / "of-yesterday"]
    kept[1].write_text("a backup")
    # The second one with its arguments exchanged, the third with a folder that is none.
    for data_dir, place in (
        (memvault.data_dir, backups),
        (backups, memvault.data_dir),
        (memvault.cwd, backups / "new"),
    ):
        done = rehearse(memvault, data_dir, place, MEMVAULT="/bin/false")
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert all(path.exists() for path in kept)
    assert [path.name for path in backups.iterdir()] == ["of-yesterday"]


def test_a_tenant_moves_to_another_installation(make_memvault: MakeMemvault, tmp_path: Path) -> None:
    here, there = make_memvault().start(), make_memvault()
    with here.client() as client:
        ids = add(client, "the first", "the second")
        client.put(f"/v1/memories/{ids[1]}/", json={"text": "the second, changed"})
        told = {one: client.get(f"/v1/memories/{one}/").json() for one in ids}
        past = {one: client.get(f"/v1/memories/{one}/history/").json() for one in ids}
    out = str(tmp_path / "out")
    assert here.json("export", "--tenant", "default", "--user", "alice", "--out", out)["memories"] == 2
    tenant = there.json("tenant", "create", "moved")["tenant_id"]
    dry = there.json("import", out, "--tenant", tenant, "--dry-run")
    assert (dry["imported"], dry["dry_run"]) == (2, True)
    assert there.json("import", out, "--tenant", tenant)["imported"] == 2
    key = there.json("key", "create", "--tenant", tenant, "--role", "admin")["api_key"]
    there.start()
    assert there.json("import", out, "--tenant", tenant)["known"] == 2
    with there.client(key) as client:
        assert set(listed(client)) == set(ids)
        for one in ids:
            memory = client.get(f"/v1/memories/{one}/").json()
            assert {name: memory[name] for name in ("memory", "metadata", "created_at", "updated_at", "user_id")} == {
                name: told[one][name] for name in ("memory", "metadata", "created_at", "updated_at", "user_id")
            }
            assert client.get(f"/v1/memories/{one}/history/").json() == past[one]
        assert eventually(lambda: len(search(client, "what came second?")) == 2, seconds=60)


def test_a_rehearsal_runs_the_command_of_its_checkout(memvault: Memvault, tmp_path: Path) -> None:
    """`make run` puts none on the path."""
    examples, programs = tmp_path / "docs" / "examples", tmp_path / ".venv" / "bin"
    examples.mkdir(parents=True)
    programs.mkdir(parents=True)
    script = examples / "rehearse-restore.sh"
    script.write_bytes((REPOSITORY / "docs" / "examples" / script.name).read_bytes())
    (programs / "memvault").write_text('#!/bin/sh\necho "$@"\n')
    for program in (script, programs / "memvault"):
        program.chmod(0o755)
    (memvault.data_dir / "postgres").mkdir()
    place = memvault.place / "rehearsal"
    done = subprocess.run(
        ["docs/examples/rehearse-restore.sh", str(memvault.data_dir), str(place)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"backup --data-dir {memvault.data_dir} --out {place}/backup\n")
