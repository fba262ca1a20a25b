"""Every command beside a running service and without one: what it prints, what it changes, and how soon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import Memvault, add, eventually, free_port, search

pytestmark = pytest.mark.integration

#: Seconds after which a revoked key or a suspended tenant has stopped.
STOPS_WITHIN = 5.0
_TENANT_NUMBERS = iter(range(1000))


@pytest.fixture(scope="module")
def stopped(written_model: Path) -> Iterator[Memvault]:
    """An installation that is never served: only commands touch it."""
    memvault = Memvault(written_model)
    try:
        memvault.json("migrate")
        yield memvault
    finally:
        memvault.remove()


@pytest.fixture(params=["beside a service", "without one"])
def either(request: pytest.FixtureRequest) -> Memvault:
    """An installation that is served, and one that is not."""
    memvault: Memvault = request.getfixturevalue("served" if request.param == "beside a service" else "stopped")
    return memvault


@pytest.fixture
def tenant(served: Memvault) -> str:
    """A tenant of the running installation."""
    name = f"tenant-{next(_TENANT_NUMBERS)}"
    made: str = served.json("tenant", "create", name)["tenant_id"]
    return made


def status(client: httpx.Client) -> int:
    """Return how a harmless request is answered."""
    return client.get("/v1/ping/").status_code


def test_tenants_are_created_listed_suspended_and_resumed(either: Memvault) -> None:
    name = f"acme-{next(_TENANT_NUMBERS)}"
    made = either.json("tenant", "create", name)
    UUID(made["tenant_id"])
    assert {tenant["name"]: tenant["status"] for tenant in either.json("tenant", "list")}[name] == "active"
    assert either.json("tenant", "suspend", name)["status"] == "suspended"
    assert either.json("tenant", "resume", made["tenant_id"])["status"] == "active"
    again = either.run("tenant", "create", name)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("memvault: ")
    assert len(again.stderr.splitlines()) == 1


def test_a_tenant_is_limited_shown_and_renamed(served: Memvault) -> None:
    name = f"limits-{next(_TENANT_NUMBERS)}"
    made = served.json("tenant", "create", name)
    shown = served.json("tenant", "limits", name, "--memories", "10", "--bytes", "none", "--requests-per-second", "5")
    assert shown["limits"]["memories"] == {"limit": 10, "used": 0, "set_for": "tenant"}
    assert shown["limits"]["bytes"] == {"limit": None, "used": 0, "set_for": "tenant"}
    assert shown["limits"]["events_waiting"]["set_for"] == "installation"
    served.json("tenant", "limits", name, "--bytes", "default")
    assert served.json("tenant", "show", name)["limits"]["bytes"]["set_for"] == "installation"
    listed = {tenant["name"]: tenant["own_limits"] for tenant in served.json("tenant", "list")}
    assert listed[name] == {"memories": 10, "requests_per_second": 5}
    refused = served.run("tenant", "limits", name, "--memories", "ten")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--memories ten" in refused.stderr
    assert served.json("tenant", "language", name)["language"] == "english"
    assert served.json("tenant", "language", name, "german")["changing"] is True
    told = {"language": "german", "set_for": "tenant", "changing": True}
    assert served.json("tenant", "language", name).items() >= told.items()
    refused = served.run("tenant", "language", name, "klingon")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "language klingon: write one of arabic, " in refused.stderr
    assert served.json("tenant", "create", f"{name}-c", "--language", "multilingual")
    assert served.json("tenant", "language", f"{name}-c", "multilingual")["changing"] is False
    renamed = served.json("tenant", "rename", name, f"{name}-b")
    assert (renamed["tenant_id"], renamed["name"]) == (made["tenant_id"], f"{name}-b")
    assert served.run("tenant", "show", name).returncode == 1


def test_a_key_is_rotated_and_changed(served: Memvault, tenant: str) -> None:
    old = served.json("key", "create", "--tenant", tenant, "--acting-required", "--expires", "30d")
    new = served.json("key", "rotate", old["key_id"], "--tenant", tenant, "--overlap", "1h")
    assert new["replaces"] == old["key_id"]
    listed = {key["key_id"]: key for key in served.json("key", "list", "--tenant", tenant)}
    assert listed[old["key_id"]]["replaced_by"] == new["key_id"]
    assert listed[new["key_id"]]["acting"] == "required"
    with served.client(old["api_key"]) as before, served.client(new["api_key"]) as after:
        assert (status(before), status(after)) == (200, 200)
    changed = served.json("key", "change", new["key_id"], "--tenant", tenant, "--scope", "memory:read")
    assert changed["permissions"] == ["memory:read"]
    late = served.json("key", "create", "--tenant", tenant, "--begins", "1h")
    with served.client(late["api_key"]) as client:
        assert status(client) == 401


def test_keys_are_created_listed_and_revoked(either: Memvault) -> None:
    name = f"keys-{next(_TENANT_NUMBERS)}"
    tenant_id = either.json("tenant", "create", name)["tenant_id"]
    reader = either.json("key", "create", "--tenant", name, "--role", "reader")
    narrow = either.json(
        *("key", "create", "--tenant", tenant_id, "--scope", "memory:read", "--scope", "memory:write"),
        *("--user", "alice", "--user", "bob", "--connector", "crm", "--expires", "90d", "--label", "for the CRM"),
    )
    assert reader["api_key"].startswith("mv_")
    assert reader["tenant_id"] == tenant_id
    kept = {key["key_id"]: key for key in either.json("key", "list", "--tenant", name)}
    assert set(kept) == {reader["key_id"], narrow["key_id"]}
    one = kept[narrow["key_id"]]
    assert (one["permissions"], one["bound_to_users"], one["connector"]) == (["memory:read", "memory:write"], 2, "crm")
    assert one["expires_at"] is not None
    assert kept[reader["key_id"]]["expires_at"] is None
    assert (one["label"], kept[reader["key_id"]]["label"]) == ("for the CRM", None)
    assert reader["api_key"] not in json.dumps(list(kept.values()))
    either.json("key", "revoke", reader["key_id"], "--tenant", name)
    kept = {key["key_id"]: key for key in either.json("key", "list", "--tenant", name)}
    assert kept[reader["key_id"]]["revoked_at"] is not None
    assert kept[narrow["key_id"]]["revoked_at"] is None
    later = either.json("key", "create", "--tenant", name, "--begins", "1h", "--label", "next\x1b[2J year")
    gone = either.json("key", "create", "--tenant", name, "--expires", "1s")
    time.sleep(1)
    lines = either.run("key", "list", "--tenant", name).stdout.splitlines()
    told = {line.split()[0]: line.split(maxsplit=2)[2] for line in lines}
    assert told == {
        reader["key_id"]: "revoked",
        narrow["key_id"]: "active    for the CRM",
        later["key_id"]: "to begin  next?[2J year",
        gone["key_id"]: "expired",
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--role", "emperor"), "--role emperor"),
        (("--scope", "memory:own"), "--scope memory:own"),
        (("--role", "reader", "--scope", "memory:read"), "--role and --scope"),
        (("--expires", "soon"), "--expires soon"),
        (("--expires", "0d"), "--expires 0d"),
    ],
)
def test_a_wrong_grant_is_one_line(served: Memvault, arguments: tuple[str, ...], told: str) -> None:
    ended = served.run("key", "create", "--tenant", "default", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"memvault: {told}")
    assert len(ended.stderr.splitlines()) == 1


def test_what_a_key_was_granted_is_what_it_may(served: Memvault, tenant: str) -> None:
    admin = served.json("key", "create", "--tenant", tenant, "--role", "admin")["api_key"]
    reader = served.json("key", "create", "--tenant", tenant, "--role", "reader")["api_key"]
    alices = served.json("key", "create", "--tenant", tenant, "--user", "alice")["api_key"]
    short = served.json("key", "create", "--tenant", tenant, "--expires", "2s")["api_key"]
    with served.client(short) as client:
        eventually(lambda: status(client) == 401, seconds=2 + STOPS_WITHIN)
    message = {"role": "user", "content": "Bob likes tea"}
    body = {"messages": [message], "user_id": "bob", "infer": False}
    with served.client(admin) as client:
        add(client, "Bob likes tea", user="bob")
    with served.client(reader) as client:
        assert [hit["memory"] for hit in search(client, "tea", user="bob")] == ["Bob likes tea"]
        assert client.post("/v3/memories/add/", json=body).status_code == 403
    with served.client(alices) as client:
        assert client.post("/v3/memories/add/", json=body).status_code == 403
        add(client, "Alice likes coffee")
        assert [hit["memory"] for hit in search(client, "drinks")] == ["Alice likes coffee"]


def test_a_revoked_key_stops_within_seconds(served: Memvault, tenant: str) -> None:
    key = served.json("key", "create", "--tenant", tenant)
    other = served.json("key", "create", "--tenant", tenant)["api_key"]
    with served.client(key["api_key"]) as client:
        assert status(client) == 200
        served.json("key", "revoke", key["key_id"], "--tenant", tenant)
        revoked = time.monotonic()
        eventually(lambda: status(client) == 401, seconds=STOPS_WITHIN)
        assert time.monotonic() - revoked < STOPS_WITHIN
    with served.client(other) as client:
        assert status(client) == 200


def test_a_suspended_tenant_stops_within_seconds_and_can_go_on(served: Memvault, tenant: str) -> None:
    key = served.json("key", "create", "--tenant", tenant)["api_key"]
    with served.client(key) as client, served.client() as other:
        assert status(client) == 200
        served.json("tenant", "suspend", tenant)
        eventually(lambda: status(client) == 401, seconds=STOPS_WITHIN)
        assert status(other) == 200
        served.json("tenant", "resume", tenant)
        eventually(lambda: status(client) == 200, seconds=STOPS_WITHIN)


def test_migrate_says_the_revision_and_changes_nothing_twice(either: Memvault) -> None:
    first, second = either.json("migrate"), either.json("migrate")
    assert first == second
    assert first["revision"]


def test_the_doctor_sees_each_part(served: Memvault, stopped: Memvault) -> None:
    well = served.json("doctor")
    assert well["healthy"] is True
    states = {part["name"]: part["state"] for part in well["parts"]}
    assert (states["record"], states["service"], states["data folder"]) == ("ok", "ok", "ok")
    # Not the default port, on which a service of whoever runs the tests may answer.
    idle = stopped.json("doctor", MEMVAULT_SERVER__PORT=str(free_port()))
    states = {part["name"]: part["state"] for part in idle["parts"]}
    assert (states["record"], states["service"]) == ("ok", "off")


def test_the_doctor_names_what_is_wrong(make_memvault: MakeMemvault) -> None:
    ill = make_memvault()
    ill.json("tenant", "create", "acme")
    (ill.data_dir / "keys").chmod(0o755)
    ended = ill.run("doctor", "--json", OPENROUTER_API_KEY="sk-or-x", MEMVAULT_SERVER__PORT=str(free_port()))
    assert ended.returncode == 1
    document = json.loads(ended.stdout)
    assert document["healthy"] is False
    failed = {part["name"]: part for part in document["parts"] if part["state"] == "failed"}
    assert set(failed) == {"data folder", "environment"}
    assert "chmod 700" in failed["data folder"]["do"]
    assert failed["data folder"]["where"] == "keyring.folder"
    assert "OPENROUTER_API_KEY" in failed["environment"]["reason"]
    # The look before opened the keyring, which closes its folder to others.
    (ill.data_dir / "keys").chmod(0o755)
    told = ill.run("doctor", OPENROUTER_API_KEY="sk-or-x", MEMVAULT_SERVER__PORT=str(free_port())).stdout
    assert "-> chmod 700" in told
    wrong = ill.run("doctor", "--json", MEMVAULT_SERVER__PROT="1")
    assert wrong.returncode == 1
    (part,) = json.loads(wrong.stdout)["parts"]
    assert (part["name"], part["state"]) == ("settings", "failed")
    assert "MEMVAULT_SERVER__PROT" in part["reason"]


def test_a_rebuild_beside_the_service_changes_no_answer(served: Memvault, tenant: str) -> None:
    key = served.json("key", "create", "--tenant", tenant, "--role", "admin")["api_key"]
    with served.client(key) as client:
        add(client, *(f"note {number} about gardens" for number in range(60)), "I love Italian food", "locker XK-4711")
        before = answers(client)
        assert served.json("index", "rebuild")["memories"] >= 62
        assert answers(client) == before


def test_an_index_that_was_dropped_is_made_again_by_the_command_and_by_the_start(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault().start()
    with memvault.client() as client:
        add(client, *(f"note {number} about gardens" for number in range(60)), "I love Italian food", "locker XK-4711")
        before = answers(client)
    memvault.stop()
    for by_command in (True, False):
        index = memvault.data_dir / "index"
        index.rename(memvault.place / f"dropped-{by_command}")
        if by_command:
            assert memvault.json("index", "rebuild") == {"memories": 62}
            assert index.is_dir()
        memvault.start()
        with memvault.client() as client:
            assert eventually(lambda client=client: answers(client, 200)) == before  # type: ignore[misc]
        memvault.stop()


def answers(client: httpx.Client, *allowed: int) -> list[object] | None:
    """Return ids and scores of searches by meaning and by words, to the digit; None while searches answer 503."""
    found: list[object] = []
    for query in ("which cuisine does she like?", "XK-4711", "gardens", "note 17"):
        body = {"query": query, "filters": {"user_id": "alice"}, "threshold": 0.0, "top_k": 25}
        answer = client.post("/v3/memories/search/", json=body)
        if allowed and answer.status_code == 503:
            return None
        assert answer.status_code == 200, answer.text
        found.append(sorted((hit["id"], hit["score"]) for hit in answer.json()["results"]))
    assert len(found) == 4
    return found


def test_the_bootstrap_key_is_an_admin_of_the_first_tenant_until_it_is_revoked(make_memvault: MakeMemvault) -> None:
    secret = "a-secret-of-the-installer-0123456789abcdef"
    memvault = make_memvault(MEMVAULT_BOOTSTRAP_KEY=secret).start()
    assert secret not in memvault.stdout + memvault.stderr
    assert not (memvault.data_dir / "credentials.json").exists()
    (key,) = memvault.json("key", "list", "--tenant", "default")
    with memvault.client(secret) as client:
        add(client, "unattended")
        assert client.get("/v1/keys/").json()["count"] == 1
    memvault.json("key", "revoke", key["key_id"], "--tenant", "default")
    memvault.stop()
    memvault.start()
    with memvault.client(secret) as client:
        assert status(client) == 401
    with psycopg.connect(memvault.superuser_dsn()) as connection:
        assert connection.execute("SELECT count(*) FROM api_keys").fetchone() == (1,)
