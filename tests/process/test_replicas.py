"""Two services as real processes on one Postgres, one keyring and one Qdrant server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import httpx2
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.conftest import Postgres, fresh_database
from tests.process.balancer import balanced
from tests.process.memvault import REPOSITORY, Memvault, add, eventually, free_port, listed, search

pytestmark = pytest.mark.integration

#: The secret by which both know their first admin.
BOOTSTRAP: Final = "bootstrap-key-of-the-replicas-0123456789"
QDRANT_KEY: Final = "key-of-the-qdrant-server-0123456789abcdef"
STOPS_WITHIN: Final = 5.0


class Replicas:
    """The services and what they share."""

    def __init__(self, members: list[Memvault], qdrant_url: str, config: Path) -> None:
        self.members = members
        self.qdrant_url = qdrant_url
        self.config = config

    def client(self, number: int, key: str = BOOTSTRAP) -> httpx.Client:
        """Return a client of one of them."""
        return self.members[number].client(key)

    def json(self, *arguments: str) -> Any:
        """Run a command beside the first one."""
        return self.members[0].json(*arguments, "--config", str(self.config))


@pytest.fixture(scope="module")
def replicas(
    postgres: Postgres, migrated: Postgres, written_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    """Two services; the first runs the worker too."""
    folder = tmp_path_factory.mktemp("shared")
    signing = folder / "signing.pem"
    signing.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    signing.chmod(0o600)
    with ExitStack() as stack:
        database = stack.enter_context(fresh_database(postgres))
        port = free_port()
        qdrant = subprocess.Popen([sys.executable, "-m", "tests.qdrant.serving", str(port), QDRANT_KEY], cwd=REPOSITORY)
        stack.callback(qdrant.wait, 30)
        stack.callback(qdrant.terminate)
        config = folder / "memvault.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "database": database.urls,
                    "index": {"url": f"http://127.0.0.1:{port}", "api_key": QDRANT_KEY, "grpc_port": None},
                    "keyring": {"folder": str(folder)},
                    "audit": {"signing_key": str(signing), "checkpoint_folder": str(folder / "checkpoints")},
                }
            )
        )
        members = []
        for number in range(2):
            member = Memvault(written_model, MEMVAULT_BOOTSTRAP_KEY=BOOTSTRAP)
            stack.callback(member.remove)
            member.start("--config", str(config), MEMVAULT_QUEUE__IN_PROCESS=str(number == 0).lower())
            members.append(member)
        yield Replicas(members, f"http://127.0.0.1:{port}", config)


def test_what_one_stores_the_other_finds_changes_and_deletes(replicas: Replicas) -> None:
    with replicas.client(0) as one, replicas.client(1) as other:
        (first, second) = add(one, "The locker is XK-4711", "I play the cello", user="shared")
        assert search(other, "cello", user="shared")[0]["id"] == second
        assert other.put(f"/v1/memories/{first}/", json={"text": "The locker is ZZ-0815"}).status_code == 200
        assert search(one, "ZZ-0815", user="shared")[0]["memory"] == "The locker is ZZ-0815"
        assert other.delete(f"/v1/memories/{second}/").status_code == 200
        assert one.get(f"/v1/memories/{second}/").status_code == 404
        assert {hit["id"] for hit in search(one, "cello", user="shared")} == {first}


def test_an_entity_erased_by_one_is_gone_from_the_other_at_once(replicas: Replicas) -> None:
    with replicas.client(0) as one, replicas.client(1) as other:
        add(one, "I live in Porto", user="leaver")
        assert search(other, "Porto", user="leaver")
        assert one.delete("/v2/entities/user/leaver/").status_code == 200
        assert listed(other, user="leaver") == {}
        assert search(other, "Porto", user="leaver") == []
        (again,) = eventually(lambda: _added(other, "I am new here", user="leaver"))
        assert list(listed(one, user="leaver")) == [again]


def test_a_command_that_cannot_sign_leaves_an_erasure_to_the_worker(replicas: Replicas, tmp_path: Path) -> None:
    """As in the pod or container of a service, which has no signing key and waits for the receipt."""
    settings = yaml.safe_load(replicas.config.read_text())
    del settings["audit"]["signing_key"]
    unsigned = tmp_path / "service.yaml"
    unsigned.write_text(yaml.safe_dump(settings))
    with replicas.client(0) as one:
        add(one, "I live in Faro", user="goer")
    command = replicas.members[1]
    erased = command.json("erase", "--tenant", "default", "--user", "goer", "--config", str(unsigned))
    assert (erased["status"], erased["removed"]["memories"]) == ("completed", 1)
    assert erased["receipt"]["signatures"]
    replicas.json("tenant", "create", "leaving")
    deleted = command.json("tenant", "delete", "leaving", "--yes", "--config", str(unsigned))
    assert (deleted["kind"], deleted["status"]) == ("tenant", "completed")


def _added(client: httpx.Client, text: str, *, user: str) -> list[str] | None:
    """Add, or return None while the other service is still erasing."""
    body = {"messages": [{"role": "user", "content": text}], "user_id": user, "infer": False}
    answer = client.post("/v3/memories/add/", json=body)
    return [one["id"] for one in answer.json()["results"]] if answer.status_code == 200 else None


def test_a_revoked_key_and_a_suspended_tenant_stop_on_both(replicas: Replicas) -> None:
    replicas.json("tenant", "create", "stopping")
    made = [replicas.json("key", "create", "--tenant", "stopping") for _ in range(2)]
    keys = [one["api_key"] for one in made]
    clients = [replicas.client(number, key) for key in keys for number in range(2)]
    assert all(client.get("/v1/ping/").status_code == 200 for client in clients)

    replicas.json("key", "revoke", "--tenant", "stopping", made[0]["key_id"])
    begun = time.monotonic()
    eventually(lambda: all(client.get("/v1/ping/").status_code == 401 for client in clients[:2]), seconds=STOPS_WITHIN)
    assert time.monotonic() - begun < STOPS_WITHIN
    assert all(client.get("/v1/ping/").status_code == 200 for client in clients[2:])

    replicas.json("tenant", "suspend", "stopping")
    eventually(lambda: all(client.get("/v1/ping/").status_code == 401 for client in clients), seconds=STOPS_WITHIN)
    for client in clients:
        client.close()


@pytest.mark.anyio
@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_an_mcp_session_needs_no_sticky_connection(replicas: Replicas, mode: str, version: str) -> None:
    """Each request of a session reaches another service, in both eras of the protocol."""
    urls = [member.url for member in replicas.members]
    with balanced(*urls) as (url, used):
        headers = {"Authorization": f"Bearer {BOOTSTRAP}"}
        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
            transport = streamable_http_client(f"{url}/mcp", http_client=http)
            async with Client(transport, mode=mode, read_timeout_seconds=30) as client:
                assert client.protocol_version == version
                user = f"mcp-{version}"
                for number in range(4):
                    assert (await client.list_tools()).tools
                    arguments = {"text": f"Note {number} is about tea", "user_id": user, "infer": False}
                    added = await client.call_tool("add_memory", arguments)
                    assert not added.is_error, added.content
                    asked = {"query": "tea", "filters": {"user_id": user}}
                    found = await client.call_tool("search_memories", asked)
                    assert len(found.structured_content["results"]) == number + 1
                assert (await client.read_resource(f"memory://users/{user}")).contents
        assert min(used.count(one) for one in urls) >= 5


@pytest.fixture
def anyio_backend() -> str:
    """The client runs on asyncio."""
    return "asyncio"


def test_one_is_killed_and_the_other_serves_on(replicas: Replicas) -> None:
    killed = replicas.members[1]
    with replicas.client(1) as client:
        acknowledged = add(client, *(f"Fact {number} of the killed" for number in range(10)), user="killed")
    killed.kill()
    with replicas.client(0) as other:
        assert listed(other, user="killed").keys() == set(acknowledged)
        found = eventually(lambda: _all_found(other, acknowledged), seconds=30)
        assert found
        killed.start("--config", str(replicas.config), MEMVAULT_QUEUE__IN_PROCESS="false")
    with replicas.client(1) as again:
        assert _all_found(again, acknowledged)


def _all_found(client: httpx.Client, ids: list[str]) -> bool:
    return {hit["id"] for hit in search(client, "Fact of the killed", user="killed", top_k=50)} == set(ids)


def test_a_changed_scope_holds_on_both(replicas: Replicas) -> None:
    replicas.json("tenant", "create", "changing")
    key = replicas.json("key", "create", "--tenant", "changing", "--role", "agent")
    clients = [replicas.client(number, key["api_key"]) for number in range(2)]

    def answers() -> set[int]:
        return {client.post("/v3/memories/", json={"filters": {"user_id": "alice"}}).status_code for client in clients}

    # Busy for longer than a checked key is trusted, so that both are in their steady state.
    busy_until = time.monotonic() + 3
    while time.monotonic() < busy_until:
        assert answers() == {200}
        time.sleep(0.1)
    replicas.json("key", "change", key["key_id"], "--tenant", "changing", "--scope", "audit:read")
    eventually(lambda: answers() == {403}, seconds=STOPS_WITHIN)
    assert [client.get("/v1/audit/").status_code for client in clients] == [200, 200]
    for client in clients:
        client.close()


def test_the_requests_of_a_tenant_are_counted_over_both(replicas: Replicas) -> None:
    replicas.json("tenant", "create", "hasty")
    replicas.json("tenant", "limits", "hasty", "--requests-per-second", "1")
    key = replicas.json("key", "create", "--tenant", "hasty", "--role", "reader")
    clients = [replicas.client(number, key["api_key"]) for number in range(2)]
    begun = time.monotonic()
    answers = [client.get("/v1/ping/") for _ in range(20) for client in clients]
    seconds = time.monotonic() - begun
    passed = sum(answer.status_code == 200 for answer in answers)
    # One that is there at first, and one a second for both together; each by itself would let as many pass again.
    assert 1 <= passed <= 2 + seconds
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {429}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    for client in clients:
        client.close()
