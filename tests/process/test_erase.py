"""`memvault erase` and `memvault tenant delete`, beside a running service and without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import add, listed
from tests.promises.test_9_erased import holders
from tests.promises.test_9_stolen_disks import checkpoint

pytestmark = pytest.mark.integration


def test_the_commands_work_beside_a_running_service(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault(MEMVAULT_ERASURE__PHYSICAL_DELAY="0", MEMVAULT_ERASURE__BACKUP_DAYS="30").start()
    with memvault.client() as client:
        add(client, "a note", user="alice")
        add(client, "a note", user="carol", metadata={"connector": "crm"})
        tenant = memvault.json("tenant", "create", "acmewombats")["tenant_id"]
        key = memvault.json("key", "create", "--tenant", "acmewombats", "--role", "agent")["api_key"]
        with memvault.client(key) as other:
            add(other, "of acme", user="zoe")
        checkpoint(memvault)
        assert holders(memvault.data_dir, [b"acmewombats"]) != {}
        erased = memvault.json("erase", "--tenant", "default", "--connector", "crm")
        assert (erased["status"], erased["physical"], erased["removed"]["memories"]) == ("completed", "done", 1)
        assert any(one["until"] is not None for one in erased["receipt"]["receipt"]["remains"])
        assert listed(client, user="carol") == {}
        deleted = memvault.json("tenant", "delete", "acmewombats", "--yes")
        assert (deleted["kind"], deleted["status"], deleted["physical"]) == ("tenant", "completed", "done")
        assert holders(memvault.data_dir, [b"acmewombats"]) == {}
        with memvault.client(key) as other:
            assert other.get("/v1/ping/").status_code == 401
        names = {one["tenant_id"]: (one["name"], one["status"]) for one in memvault.json("tenant", "list")}
        assert names[tenant] == (f"deleted-{tenant}", "deleted")
        # The trail of who is gone is verified as before.
        assert memvault.json("audit", "verify", "--tenant", tenant)["ok"]
        assert len(listed(client, user="alice")) == 1


def test_the_command_works_without_a_service(make_memvault: MakeMemvault, tmp_path: Path) -> None:
    memvault = make_memvault().start()
    with memvault.client() as client:
        for user in ("alice", "bob"):
            add(client, "a note", user=user)
    assert memvault.stop() == 0
    two = memvault.run("erase", "--tenant", "default", "--user", "alice", "--run", "r")
    assert (two.returncode, "exactly one" in two.stderr) == (2, True)
    nobody = memvault.run("erase", "--tenant", "default", "--user", "nobody", "--json")
    assert (nobody.returncode, "there is no such user" in nobody.stderr, nobody.stdout) == (1, True, "")
    alone = memvault.json("erase", "--tenant", "default", "--user", "alice")
    assert (alone["status"], alone["physical"]) == ("completed", "done")
    receipt = tmp_path / "receipt.json"
    receipt.write_text(json.dumps(alone["receipt"]))
    assert memvault.json("verify-receipt", str(receipt))["ok"]
    memvault.start()
    with memvault.client() as client:
        assert listed(client, user="alice") == {}
        assert len(listed(client, user="bob")) == 1
        assert client.get("/v1/erasures/").json()["count"] == 1
