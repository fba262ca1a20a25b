"""`memvault doctor` names what is broken, each broken for real, and says what to do."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg.conninfo import make_conninfo

from service import clock, wiring
from service.cli.examining import Finding, examine
from service.index.edge_folder import IndexFolder
from service.settings import load_settings
from tests.conftest import Postgres, _url
from tests.process.memvault import free_port
from tests.qdrant.serving import qdrant

pytestmark = pytest.mark.integration

KEY = "key-of-the-qdrant-server-0123456789abcdef"
Examine = Callable[..., dict[str, Finding]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder, a signing key and nothing else."""
    (tmp_path / "data").mkdir()
    key = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "signing.pem").write_bytes(key)
    (tmp_path / "signing.pem").chmod(0o600)
    return tmp_path


@pytest.fixture
def look(database: Postgres, place: Path) -> Examine:
    """Examine an installation on the test's own database; flags are settings that are merged in."""

    def looked(*, offline: bool = False, **flags: Any) -> dict[str, Finding]:
        base: dict[str, Any] = {
            "data_dir": place / "data",
            "database": database.urls,
            "server": {"port": free_port()},
            "audit": {"signing_key": place / "signing.pem", "checkpoint_folder": place / "checkpoints"},
        }
        for name, value in flags.items():
            base[name] = {**base[name], **value} if isinstance(value, dict) and name in base else value
        found = list(examine(load_settings(environ={}, flags=base), offline=offline))
        assert len({one.name for one in found}) == len(found)
        for one in found:
            assert one.state in ("ok", "off", "warning", "failed")
            if one.state == "failed":
                assert one.reason
                assert one.remedy
                assert "password=" not in one.reason
        return {one.name: one for one in found}

    return looked


def failed(found: dict[str, Finding]) -> set[str]:
    return {one.name for one in found.values() if one.state == "failed"}


@pytest.fixture
def answering() -> Iterator[Callable[[int], str]]:
    """Start servers that answer every request with one status."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_sound_installation_has_nothing_to_mend(look: Examine) -> None:
    found = look()
    assert failed(found) == set(), found
    assert {"data folder", "disk", "environment", "database", "record", "keyring", "queue", "outbox"} <= set(found)
    assert (found["extraction"].state, found["tokens"].state, found["service"].state) == ("off", "off", "off")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "wrong"}, "refuses the user or the password"),
        ({"dbname": "no_such_database"}, "does not exist"),
        ({"host": "127.0.0.1", "port": "1"}, "nothing listens"),
        ({"host": "no-such-host.invalid"}, "host name"),
        ({"host": "/no/such/folder"}, "socket"),
    ],
)
def test_a_database_that_cannot_be_entered(
    look: Examine, database: Postgres, change: dict[str, str], words: str
) -> None:
    found = look(database={"url": _url(make_conninfo(database.app, **change))})
    assert "database" in failed(found)
    assert words in str(found["database"].reason)
    assert found["database"].where == "database.url"
    assert "record" not in found


def test_a_role_that_row_level_security_does_not_bind(look: Examine, database: Postgres) -> None:
    for dsn, word in ((database.admin, "superuser"), (database.owner, "owns")):
        found = look(database={"url": _url(dsn)})
        assert "role" in failed(found), found
        assert word in str(found["role"].reason)


def test_a_schema_that_is_not_of_this_release(look: Examine, database: Postgres) -> None:
    with psycopg.connect(database.owner, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        found = look()
        assert "memvault migrate" in str(found["schema"].remedy)
        connection.execute("COMMENT ON TABLE alembic_version IS NULL")
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        found = look()
        assert "newer Memvault" in str(found["schema"].remedy)


def test_a_keyring_of_another_installation(look: Examine, place: Path, database: Postgres) -> None:
    settings = load_settings(environ={}, flags={"data_dir": place / "data", "database": database.urls})
    with ExitStack() as stack:
        connections = wiring.reach_record(settings, stack)
        wiring.open_installation(settings, connections, stack).tenants.create("acme")
    assert failed(look()) == set()
    shutil.rmtree(place / "data" / "keys")
    found = look()
    assert "keyring" in failed(found), found
    assert "keys" in str(found["keyring"].reason)


def test_a_signing_key_that_cannot_be_used(look: Examine, place: Path) -> None:
    (place / "signing.pem").chmod(0o644)
    assert "0600" in str(look()["audit trail"].reason)
    (place / "signing.pem").chmod(0o600)
    (place / "signing.pem").write_text("no key")
    found = look()
    assert "audit trail" in failed(found)
    assert found["audit trail"].where == "audit.signing_key"
    (place / "signing.pem").unlink()
    assert "audit trail" in failed(look())


def test_an_index_server_that_is_away_or_refuses_the_key(look: Examine, answering: Callable[[int], str]) -> None:
    nothing = f"http://127.0.0.1:{free_port()}"
    found = look(index={"url": nothing, "grpc_port": None})
    assert "index" in failed(found)
    assert "does not answer" in str(found["index"].reason)
    found = look(index={"url": answering(401), "api_key": KEY, "grpc_port": None})
    assert "index" in failed(found)
    assert "index.api_key" in str(found["index"].remedy)


def test_an_index_server_that_cannot_make_shard_keys(look: Examine) -> None:
    for cluster, keys, state in ((False, 0, "ok"), (True, 5, "ok"), (False, 5, "failed")):
        with qdrant(api_key=KEY, cluster=cluster, grpc=True) as served:
            index = {"url": served.url, "api_key": KEY, "grpc_port": served.grpc_port, "shard_keys": keys}
            found = look(index=index)["index"]
        assert found.state == state, found
    assert "no cluster" in str(found.reason)
    assert "index.shard_keys" in str(found.remedy)


def test_an_llm_that_is_away_or_refuses_the_key(look: Examine, answering: Callable[[int], str]) -> None:
    def llm(url: str) -> dict[str, Any]:
        return {"provider": "openai", "config": {"openai_base_url": url, "api_key": "sk-x", "model": "m"}}

    found = look(llm=llm(f"http://127.0.0.1:{free_port()}/v1"))
    assert "cannot be reached" in str(found["extraction"].reason)
    found = look(llm=llm(answering(401)))
    assert "refuses the key" in str(found["extraction"].reason)
    assert look(llm=llm(answering(404)))["extraction"].state == "ok"
    assert look(llm=llm("http://127.0.0.1:1"), offline=True)["extraction"].state == "ok"


def test_an_issuer_that_is_away(look: Examine) -> None:
    issuer = f"http://127.0.0.1:{free_port()}"
    flags = {"auth": {"oidc": {"issuer": issuer, "timeout": 1}}, "server": {"public_url": "http://127.0.0.1:9"}}
    found = look(**flags)
    assert "tokens" in failed(found)
    assert found["tokens"].where == "auth.oidc.issuer"


def test_a_port_that_another_program_has(look: Examine, answering: Callable[[int], str]) -> None:
    port = int(answering(200).rpartition(":")[2])
    found = look(server={"port": port})
    assert "no Memvault" in str(found["port"].reason)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(0)
        found = look(server={"port": silent.getsockname()[1]})
        assert failed(found) == {"port"}
    assert found["port"].where == "server.port"


def test_a_service_that_listens_on_ipv6(look: Examine) -> None:
    port = free_port()
    found = look(server={"host": "::", "port": port})["service"]
    assert (found.state, f"http://[::]:{port};" in str(found.reason)) == ("off", True)


def test_folders_disk_and_clock(look: Examine, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = place / "data" / "keys"
    keys.mkdir(mode=0o755, exist_ok=True)
    keys.chmod(0o755)
    assert "chmod 700" in str(look()["data folder"].remedy)
    keys.chmod(0o700)
    usage = type("Usage", (), {"total": 1 << 40, "used": 0, "free": 1 << 20})
    with monkeypatch.context() as patch:
        patch.setattr("service.cli.examining.shutil.disk_usage", lambda _: usage)
        assert "disk" in failed(look())
    ahead = clock.now() + timedelta(minutes=5)
    with monkeypatch.context() as patch:
        patch.setattr("service.cli.examining.clock.now", lambda: ahead)
        found = look()
        assert "clock" in failed(found)
        assert "seconds" in str(found["clock"].reason)
    file = place / "file"
    file.write_text("")
    assert "is a file" in str(look(data_dir=file)["data folder"].reason)


def test_checkpoints_and_jobs_that_wait(look: Examine, place: Path, database: Postgres) -> None:
    assert failed(look()) == set()
    flags = {
        "data_dir": place / "data",
        "database": database.urls,
        "audit": {"signing_key": place / "signing.pem", "checkpoint_folder": place / "checkpoints"},
    }
    settings = load_settings(environ={}, flags=flags)
    with ExitStack() as stack:
        installation = wiring.open_installation(settings, wiring.reach_record(settings, stack), stack)
        installation.tenants.create("acme")
        sealing = wiring.seal_trail(installation)
        assert sealing.keeper.round(full=True).checkpoint is not None
        sealing.keeper.deliver()
    old = "now() - interval '1 hour'"
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES ('memvault', 'extract')")
        connection.execute(f"UPDATE procrastinate_events SET at = {old}")  # type: ignore[arg-type]
        assert failed(look()) == set()
        assert "memvault worker" in str(look()["queue"].remedy)
        connection.execute("INSERT INTO audit_deliveries (sink, number, at) VALUES ('elsewhere', 0, now())")
        connection.execute("SET session_replication_role = replica")
        connection.execute(f"UPDATE audit_checkpoints SET at = {old}")  # type: ignore[arg-type]
        assert "elsewhere" in str(look()["audit trail"].reason)
        connection.execute("UPDATE audit_checkpoints SET body = 'x'")
        assert "not what was signed" in str(look()["audit trail"].reason)


@pytest.mark.parametrize("folder", ["index", "index-2"])
def test_an_index_that_another_process_has_is_named(look: Examine, place: Path, folder: str) -> None:
    held = IndexFolder(place / "data" / folder, dimensions=8, model="test")
    try:
        found = look()["index"]
    finally:
        held.close()
    assert found.state == "failed"
    assert str(os.getpid()) in (found.reason or "")
    assert look()["index"].state == "ok"
