"""Erasure: no byte of the person in the data folder, nothing in older backups that opens, nothing that comes back."""

from __future__ import annotations

import json
import os
import shutil
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import psycopg
import pytest
from sqlalchemy import ARRAY

from service.scope import TenantId
from service.storage.encryption import CannotOpen, Cipher, Place
from service.storage.erasers import erasers
from service.storage.keyring import FileKeyring, KeyDestroyed
from tests.llm.scripted import ScriptedLLM
from tests.process.memvault import Memvault, add, eventually, listed, search
from tests.promises.test_9_stolen_disks import checkpoint, extract

pytestmark = pytest.mark.promises

TEXT, OLD, SAID, FACT = "quokkaerasure", "oldplatypus", "saidnumbat", "factbandicoot"
ALICE, KEY, VALUE, AGENT, LABEL = "alicekookaburra", "keywallaby", "valuedingo", "agentgalah", "labelpotoroo"
ACCOUNT, REASON, WAITING = "accountcassowary", "reasonbilby", "waitingquoll"
CANARIES = (TEXT, OLD, SAID, FACT, ALICE, KEY, VALUE, ACCOUNT, REASON, WAITING)
#: How much of a ciphertext is looked for: more than chance could make.
HEAD = 24


class Planted:
    """What was written of the person, as it stands on the disk."""

    def __init__(self, memvault: Memvault, subject_id: UUID, memory_id: UUID) -> None:
        self.memvault = memvault
        self.subject_id = subject_id
        self.sealed = sorted(set(sealed_of(memvault, subject_id)))
        self.vector = vector_of(memvault, memory_id)


def with_llm(written_model: Path, llm: ScriptedLLM, **more: str) -> Memvault:
    """An installation that extracts with the scripted LLM and keeps the texts of deleted memories."""
    return Memvault(
        written_model,
        MEMVAULT_LLM__PROVIDER="openai",
        MEMVAULT_LLM__MODEL="scripted",
        MEMVAULT_LLM__API_KEY="sk-scripted",
        MEMVAULT_LLM__BASE_URL=llm.url,
        MEMVAULT_LLM__ATTEMPTS="1",
        MEMVAULT_HISTORY__KEEP_DELETED="true",
        MEMVAULT_ERASURE__PHYSICAL_DELAY="0",
        MEMVAULT_ERASURE__BACKUP_DAYS="30",
        **more,
    )


def ready(memvault: Memvault) -> None:
    """Wait until extraction works."""
    with memvault.client() as client:
        eventually(lambda: client.get("/readyz").json()["parts"]["extraction"]["status"] == "ok", seconds=90)


def plant(memvault: Memvault, client: httpx.Client, llm: ScriptedLLM) -> Planted:
    """Write of the person into every table and every feature, and of another person beside."""
    metadata = {KEY: VALUE, "connector": "crm"}
    ids = add(client, f"I keep {TEXT}", f"once {OLD}", f"to go {OLD}", user=ALICE, metadata=metadata, agent_id=AGENT)
    add(client, "bob keeps a wombat", user="bob", metadata={"connector": "slack"}, agent_id=AGENT)
    assert client.put(f"/v1/memories/{ids[1]}/", json={"text": f"now {TEXT}"}).status_code == 200
    assert client.delete(f"/v1/memories/{ids[2]}/").status_code == 200
    llm.facts(f"The fact is {FACT}")
    assert extract(client, f"listen: {SAID}", ALICE)["status"] == "SUCCEEDED"
    llm.status(400)
    assert extract(client, f"failing {SAID}", ALICE)["status"] == "FAILED"
    memvault.json("key", "create", "--tenant", "default", "--user", ALICE, "--label", LABEL)
    spoken = {"messages": [{"role": "user", "content": f"again {TEXT}"}], "user_id": ALICE, "infer": False}
    assert client.post("/v3/memories/add/", json=spoken, headers={"Idempotency-Key": "once"}).status_code == 200
    told = {"user_id": ALICE, "summary": f"talked of {TEXT}", "channel": "chat", "connector": "crm"}
    assert client.post("/tools/store_interaction_summary", json=told).status_code == 200
    linked = {"connector": "slack", "account": ACCOUNT, "user_id": ALICE}
    assert client.post("/v1/identities/", json=linked).status_code in (200, 201)
    asked = {"schema": {"type": "object", "properties": {KEY: {"type": "string"}}}, "filters": {"user_id": ALICE}}
    assert client.post("/v1/exports/", json=asked).status_code == 201
    judged = {"memory_id": ids[0], "feedback": "NEGATIVE", "feedback_reason": f"no {REASON}"}
    assert client.post("/v1/feedback/", json=judged).status_code == 200
    tenant = memvault.credentials["tenant_id"]
    project = f"/api/v1/orgs/organizations/{tenant}/projects/{tenant}/"
    assert client.patch(project, json={"review_required": True}).status_code == 200
    llm.facts(f"The fact is {WAITING}")
    assert extract(client, f"hear: {WAITING}", ALICE)["status"] == "SUCCEEDED"
    assert WAITING in client.get("/v1/reviews/").text
    assert search(client, TEXT, user=ALICE)
    with superuser(memvault) as connection:
        row = connection.execute("SELECT user_id FROM memories WHERE id = %s", [ids[0]]).fetchone()
    assert row is not None
    return Planted(memvault, row[0], UUID(ids[0]))


def superuser(memvault: Memvault) -> psycopg.Connection[Any]:
    """Connect past row-level security."""
    return psycopg.connect(memvault.superuser_dsn(), autocommit=True)


def sealed_of(memvault: Memvault, subject_id: UUID) -> Iterator[bytes]:
    """Yield the head of every sealed value in a row that the register of erasers counts as the person's."""
    with superuser(memvault) as connection:
        for eraser in erasers():
            wanted = [column.name for column in eraser.table.columns if column.type.python_type is bytes]
            for column in eraser.subjects:
                for value in wanted:
                    query = f"SELECT {value} FROM {eraser.name} WHERE {value} IS NOT NULL AND %s = ANY({column})"
                    if not isinstance(eraser.table.c[column].type, ARRAY):
                        query = query.replace("ANY(", "ANY(ARRAY[").replace(")", "])")
                    for row in connection.execute(query, [subject_id]):  # type: ignore[arg-type]
                        if len(row[0]) >= HEAD:
                            yield bytes(row[0][:HEAD])


def sealed_values(memvault: Memvault) -> list[tuple[str, UUID, str, bytes]]:
    """Return every sealed value of the database with its table, row and column, as a backup of the data has them."""
    found = []
    with superuser(memvault) as connection:
        for eraser in erasers():
            columns = eraser.table.columns
            if "id" not in columns:
                continue
            for column in columns:
                if column.type.python_type is bytes:
                    query = f"SELECT id, {column.name} FROM {eraser.name} WHERE {column.name} IS NOT NULL"
                    rows = connection.execute(query).fetchall()  # type: ignore[arg-type]
                    found += [(eraser.name, row[0], column.name, bytes(row[1])) for row in rows]
    return found


def opened(memvault: Memvault, values: Iterable[tuple[str, UUID, str, bytes]]) -> bytes:
    """Return all that the keyring as it is now opens of these values."""
    keyring, tenant_id = FileKeyring(memvault.data_dir / "keys"), TenantId(UUID(memvault.credentials["tenant_id"]))
    ciphers = [Cipher(keyring.tenant_secret(tenant_id, "tenant-content"))]
    ciphers += [Cipher(key) for _, subject_id, key in keyring.each() if subject_id is not None and key is not None]
    found = []
    for table, row_id, column, value in values:
        for cipher in ciphers:
            with suppress(CannotOpen):
                found.append(cipher.open(value, Place(tenant_id, table, row_id, column)))
    return b"\n".join(found)


def vector_of(memvault: Memvault, memory_id: UUID) -> bytes:
    """Return a part of the vector of a memory as the index has it."""
    keyring = FileKeyring(memvault.data_dir / "keys")
    with superuser(memvault) as connection:
        row = connection.execute(
            "SELECT tenant_id, owner_id, vector FROM memories WHERE id = %s", [memory_id]
        ).fetchone()
    assert row is not None
    cipher = keyring.subject(TenantId(row[0]), row[1])
    raw = cipher.open(bytes(row[2]), Place(TenantId(row[0]), "memories", memory_id, "vector"))
    return np.frombuffer(raw, dtype="<f4").tobytes()[64 : 64 + HEAD]


def spellings(canary: str) -> set[bytes]:
    """Return a canary in each form in which one could read it or decode it."""
    plain = canary.encode()
    base64 = {b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)}
    return {plain, canary.encode("utf-16-le"), canary.encode("utf-16-be"), plain.hex().encode(), *base64}


def holders(folder: Path, needles: Iterable[bytes]) -> dict[bytes, set[str]]:
    """Return which of the needles stand in files below a folder, each with the files."""
    wanted, found = list(needles), dict[bytes, set[str]]()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink() or path.name == "credentials.json":
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        for needle in wanted:
            if needle in content:
                found.setdefault(needle, set()).add(str(path.relative_to(folder)))
    return found


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """The scripted LLM."""
    with ScriptedLLM() as scripted:
        yield scripted


@pytest.fixture
def memvault(written_model: Path, llm: ScriptedLLM) -> Iterator[Memvault]:
    """A running installation with the scripted LLM."""
    with ExitStack() as stack:
        memvault = with_llm(written_model, llm)
        stack.callback(memvault.remove)
        memvault.start()
        ready(memvault)
        yield memvault


def test_no_byte_of_the_person_is_left_and_a_signed_receipt_says_so(memvault: Memvault, llm: ScriptedLLM) -> None:
    """After an erasure no byte of the person's text or metadata is in the data folder (Postgres files, WAL, index,
    logs, exports), neither readable nor sealed; a signed receipt without content says so; what older data backups hold
    can no longer be decrypted with the present keyring.
    """
    with memvault.client() as client:
        planted = plant(memvault, client, llm)
        # So that the search can fail: before, all of it is there, in tables, WAL and index.
        checkpoint(memvault)
        before = holders(memvault.data_dir, [*planted.sealed, planted.vector])
        assert set(before) == {*planted.sealed, planted.vector}
        places = {file.split("/")[0] for files in before.values() for file in files}
        assert places == {"postgres", "index"}
        assert any("pg_wal" in file for files in before.values() for file in files)
        kept = listed(client, user="bob")
        values = sealed_values(memvault)
        plain = opened(memvault, values)
        assert all(canary.encode() in plain for canary in (TEXT, ALICE, VALUE, REASON))
    backup = copied(memvault)

    erased = memvault.json("erase", "--tenant", "default", "--user", ALICE)
    assert (erased["status"], erased["physical"]) == ("completed", "done"), erased
    receipt = erased["receipt"]["receipt"]
    assert receipt["checked"]["key"] == "destroyed"
    assert set(receipt["checked"]["rows_left"].values()) == {0}
    assert (receipt["removed"]["feedback"], receipt["removed"]["quarantine"]) == (1, 1)
    with superuser(memvault) as connection:
        for table in ("feedback", "quarantine"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # type: ignore[arg-type]
    assert receipt["physical"]["database"]["wal_switched"]
    assert [one["until"] for one in receipt["remains"]] == [None, None]
    left = holders(memvault.data_dir, [*planted.sealed, planted.vector])
    assert left == {}
    readable = {spelling for canary in CANARIES for spelling in spellings(canary)}
    assert holders(memvault.data_dir, readable) == {}
    assert not any(canary in json.dumps(erased) for canary in CANARIES)
    present = opened(memvault, values)
    assert b"wombat" in present
    assert [canary for canary in (*CANARIES, LABEL) if canary.encode() in present] == []

    file = memvault.place / "receipt.json"
    file.write_text(json.dumps(erased))
    public = memvault.place / "public.pem"
    public.write_text(memvault.run("audit", "public-key").stdout)
    verified = memvault.run("verify-receipt", str(file), "--public-key", str(public), data_dir=False)
    assert verified.returncode == 0, verified.stderr
    file.write_text(json.dumps(erased).replace('"memories": ', '"memories": 1'))
    assert memvault.run("verify-receipt", str(file), "--public-key", str(public), data_dir=False).returncode == 1

    with memvault.client() as client:
        assert listed(client, user="bob") == kept
        assert listed(client, user=ALICE) == {}
        assert client.get("/v1/erasures/").json()["results"][0]["receipt"] == erased["receipt"]
    restored(memvault, backup, planted)
    keyring = FileKeyring(memvault.data_dir / "keys")
    with memvault.client() as client:
        with pytest.raises(KeyDestroyed):
            keyring.subject(TenantId(UUID(memvault.credentials["tenant_id"])), planted.subject_id)
        assert listed(client, user="bob") == kept
        assert listed(client, user=ALICE) == {}
        assert all(TEXT not in hit["memory"] for hit in search(client, TEXT, user="bob"))


def copied(memvault: Memvault) -> Path:
    """Copy the stopped data folder, without the keyring, the journal beside it and the checkpoints."""
    assert memvault.stop() == 0
    backup = memvault.place / "backup"
    backup.mkdir()
    for name in ("postgres", "index"):
        shutil.copytree(memvault.data_dir / name, backup / name, symlinks=True)
        same_owner(memvault.data_dir / name, backup / name)
    memvault.start()
    ready(memvault)
    return backup


def restored(memvault: Memvault, backup: Path, planted: Planted) -> None:
    """Put an older copy of the data in place, with the present keyring, and start."""
    assert memvault.stop() == 0
    # The person's rows are in it, sealed under a key that is gone.
    assert set(holders(backup, planted.sealed)) == set(planted.sealed)
    for name in ("postgres", "index"):
        shutil.rmtree(memvault.data_dir / name)
        shutil.copytree(backup / name, memvault.data_dir / name, symlinks=True)
        same_owner(backup / name, memvault.data_dir / name)
    memvault.start()


def same_owner(source: Path, target: Path) -> None:
    """Give a copy the owners of what it was copied from: as root, Postgres is another user."""
    for path in [source, *source.rglob("*")]:
        status = path.lstat()
        os.chown(target / path.relative_to(source), status.st_uid, status.st_gid, follow_symlinks=False)


def test_nothing_comes_back_from_a_job_that_waits_for_an_llm(memvault: Memvault, llm: ScriptedLLM) -> None:
    """A job that was waiting for an LLM does not bring anything back."""
    with memvault.client() as client:
        add(client, f"I keep {TEXT}", user=ALICE)
        add(client, "stays", user="bob")
        llm.facts(f"The fact is {FACT}")
        llm.hold()
        body = {"messages": [{"role": "user", "content": SAID}], "user_id": ALICE}
        event_id = client.post("/v3/memories/add/", json=body).json()["event_id"]
        # One waits in the queue behind the one that is being answered.
        behind = client.post("/v3/memories/add/", json=body | {"metadata": {"n": 2}}).json()["event_id"]
        llm.wait_for_requests(1)
        asked = client.post("/v1/erasures/", json={"user_id": ALICE})
        assert asked.status_code == 202, asked.text
        url = f"/v1/erasures/{asked.json()['id']}/"
        eventually(lambda: client.get(url).json()["rows_removed_at"], seconds=60)
        llm.release()
        done = eventually(lambda: found if (found := client.get(url).json())["receipt"] else None, seconds=90)
        assert done["status"] == "completed"
        for event in (event_id, behind):
            assert client.get(f"/v1/event/{event}/").status_code == 404
        assert listed(client, user=ALICE) == {}
        assert set(listed(client, user="bob").values()) == {"stays"}
    with superuser(memvault) as connection:
        for table in ("memories", "history", "messages", "events"):
            query = f"SELECT count(*) FROM {table} WHERE owner_id = %s"
            assert connection.execute(query, [done["subject_id"]]).fetchone() == (0,)  # type: ignore[arg-type]
        assert eventually(
            lambda: (
                connection.execute("SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'extract'").fetchone()
                == (0,)
            )
        )


def test_an_erasure_that_a_kill_cut_short_is_finished_by_the_next_start(written_model: Path) -> None:
    """However the process ends, the erasure goes on where it was."""
    with ExitStack() as stack:
        # The pass comes so late that the kill comes first; the next start has no such delay.
        memvault = Memvault(written_model, MEMVAULT_ERASURE__PHYSICAL_DELAY="3600")
        stack.callback(memvault.remove)
        memvault.start()
        with memvault.client() as client:
            add(client, *(f"note {number}" for number in range(50)), user=ALICE)
            add(client, "stays", user="bob")
            asked = client.post("/v1/erasures/", json={"user_id": ALICE}).json()
            # The key is gone before the answer is there; whatever the kill hits after that is done later.
            memvault.kill()
        memvault.start(MEMVAULT_ERASURE__PHYSICAL_DELAY="0")
        with superuser(memvault) as connection:
            connection.execute("UPDATE erasure_work SET due_at = now()")
            connection.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE scheduled_at IS NOT NULL")
        with memvault.client() as client:
            url = f"/v1/erasures/{asked['id']}/"
            done = eventually(lambda: found if (found := client.get(url).json())["receipt"] else None, seconds=120)
            assert done["removed"]["memories"] == 50
            assert set(listed(client, user="bob").values()) == {"stays"}
            assert listed(client, user=ALICE) == {}
