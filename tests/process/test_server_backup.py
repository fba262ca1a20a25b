"""Backup and restore of an installation whose record is in a PostgreSQL that it does not run itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import sql

from service import clock
from tests.conftest import Postgres, fresh_database
from tests.process.fixtures import MakeMemvault
from tests.process.memvault import Memvault, add, eventually, listed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

KEY = "bootstrap-key-of-the-installation-0123456789"


@pytest.fixture
def backup_role(postgres: Postgres) -> Iterator[tuple[str, str]]:
    """A role as the page on backups makes it: it reads past row-level security, and writes nothing."""
    name, password = f"backup_{clock.new_id().hex}", clock.new_random_id().hex
    with psycopg.connect(postgres.admin, autocommit=True) as connection:
        role = sql.Identifier(name)
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN BYPASSRLS PASSWORD {}").format(role, sql.Literal(password)),
        )
        connection.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(role))
        yield name, password
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


class Place:
    """An installation on a database of a server, with what configures it."""

    def __init__(self, memvault: Memvault, database: Postgres, **urls: str) -> None:
        self.memvault = memvault
        self.database = database
        signing = memvault.place / "signing.pem"
        signing.write_bytes(
            Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        signing.chmod(0o600)
        self.config = memvault.place / "memvault.yaml"
        self.set(signing, **urls)

    def set(self, signing: Path, **urls: str) -> None:
        """Write the configuration; the trail of a restored record is signed by the key that signed it before."""
        self.signing = signing
        audit = {"signing_key": str(signing), "checkpoint_folder": str(self.memvault.place / "checkpoints")}
        database = {**self.database.urls, **urls}
        self.config.write_text(yaml.safe_dump({"database": database, "audit": audit}))

    def json(self, *arguments: str) -> Any:
        """Run a command and return its document."""
        return self.memvault.json(*arguments, "--config", str(self.config))

    def refused(self, *arguments: str) -> str:
        """Run a command that is refused, and return what it says."""
        ended = self.memvault.run(*arguments, "--config", str(self.config))
        assert ended.returncode != 0
        return ended.stderr

    def start(self) -> None:
        """Serve."""
        self.memvault.start("--config", str(self.config))

    def counts(self) -> dict[str, tuple[int, ...]]:
        """Every table's rows by tenant of what a restore must neither lose nor add to."""
        with psycopg.connect(self.database.admin) as connection:
            tables = ("memories", "history", "subjects", "api_keys")
            rows = {
                table: tuple(
                    row[0]
                    for row in connection.execute(
                        sql.SQL("SELECT count(*) FROM {} GROUP BY tenant_id ORDER BY tenant_id").format(
                            sql.Identifier(table)
                        )
                    )
                )
                for table in tables
            }
            used = connection.execute("SELECT sum(memories)::bigint, sum(bytes)::bigint FROM usage").fetchone()
        assert used is not None
        return rows | {"usage": used}


def with_role(url: str, name: str, password: str) -> str:
    """The URL of the same database for another role."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{name}:{password}@{host}"))


def test_one_database_is_backed_up_and_restored_into_another(
    make_memvault: MakeMemvault, database: Postgres, postgres: Postgres, backup_role: tuple[str, str]
) -> None:
    source = Place(make_memvault(MEMVAULT_BOOTSTRAP_KEY=KEY), database)
    source.start()
    with source.memvault.client(KEY) as client:
        add(client, "alice keeps bees", "alice reads maps", user="alice")
        add(client, "bob keeps goats", user="bob")
        before = listed(client, user="alice")
    archive = source.memvault.place / "archive"
    backup = ("backup", "--out", str(archive / "all"), "--keyring", str(archive / "apart"))
    archive.mkdir()

    # Neither without a role nor with one that row-level security binds: a part of the rows would be no backup.
    assert "database.backup_url: is needed" in source.refused(*backup)
    source.set(source.signing, backup_url=source.database.urls["owner_url"])
    assert "BYPASSRLS" in source.refused("backup", "--out", str(archive / "none"))
    source.set(source.signing, backup_url=with_role(database.urls["url"], *backup_role))
    made = source.json(*backup)
    assert made["data_bytes"] > 0
    with source.memvault.client(KEY) as client:
        assert client.delete("/v2/entities/user/bob/").status_code == 200
    source.memvault.stop()
    counted = source.counts()

    with ExitStack() as stack:
        target = Place(
            make_memvault(MEMVAULT_BOOTSTRAP_KEY=KEY), stack.enter_context(fresh_database(postgres, empty=True))
        )
        target.set(source.signing)
        restore = ("restore", str(archive / "all"), "--keyring", str(archive / "apart"))
        restored = target.json(*restore)
        assert restored["memories"] == 3
        target.start()
        with target.memvault.client(KEY) as client:
            assert listed(client, user="alice") == before
            assert set(listed(client, user="bob").values()) == {"bob keeps goats"}
            hits = eventually(lambda: searched(client), seconds=60)
            assert "alice keeps bees" in {hit["memory"] for hit in hits}
            [written] = add(client, "alice came back", user="alice")
            assert written in listed(client, user="alice")
        target.memvault.stop()
        report = target.json("audit", "verify")
        assert report["ok"], report

        # The database is not empty any more, nor is the first one: nothing is touched, and --replace drops neither.
        for place in (target, source):
            was = place.counts()
            keys = sorted((place.memvault.data_dir / "keys").rglob("*"))
            for more in ((), ("--replace",)):
                said = place.refused(*restore, *more)
                assert "holds an installation already; restore into an empty database" in said
            assert place.counts() == was
            assert sorted((place.memvault.data_dir / "keys").rglob("*")) == keys
        assert source.counts() == counted

        # In a fresh database beside the data folder that stayed: who was erased after the backup is erased again.
        again = stack.enter_context(fresh_database(postgres, empty=True))
        source.database = again
        source.set(source.signing)
        restored = source.json(*restore)
        assert (restored["memories"], restored["keys"]) == (2, 0)
        assert restored["applied"] >= 1
        source.start()
        with source.memvault.client(KEY) as client:
            assert listed(client, user="alice") == before
            assert listed(client, user="bob") == {}
        source.memvault.stop()
        now = source.counts()
        assert (now["memories"], now["usage"]) == (counted["memories"], counted["usage"])


def test_what_cannot_be_restored_leaves_nothing_behind(
    make_memvault: MakeMemvault, database: Postgres, postgres: Postgres, backup_role: tuple[str, str]
) -> None:
    source = Place(make_memvault(MEMVAULT_BOOTSTRAP_KEY=KEY), database)
    source.set(source.signing, backup_url=with_role(database.urls["url"], *backup_role))
    archive = source.memvault.place / "archive"
    source.json("backup", "--out", str(archive))
    with fresh_database(postgres, empty=True) as empty:
        target = Place(make_memvault(MEMVAULT_BOOTSTRAP_KEY=KEY), empty)
        settings = yaml.safe_load(target.config.read_text())
        owner = settings["database"].pop("owner_url")
        target.config.write_text(yaml.safe_dump(settings))
        assert "database.owner_url: is needed to restore" in target.refused("restore", str(archive))
        wrong = with_role(database.urls["url"], "nobody_of_this_name", "a-wrong-password-0123456789")
        settings["database"] = {"url": wrong, "owner_url": owner}
        target.config.write_text(yaml.safe_dump(settings))
        said = target.refused("restore", str(archive))
        assert "database.url: does not answer" in said
        assert "wrong-password" not in said
        assert not (target.memvault.data_dir / "keys").exists()
        with psycopg.connect(empty.admin) as connection:
            assert connection.execute("SELECT to_regclass('public.tenants')").fetchone() == (None,)


def searched(client: Any) -> list[Any]:
    """What a search finds once the index is made again, or nothing."""
    answer = client.post(
        "/v3/memories/search/", json={"query": "bees", "filters": {"user_id": "alice"}, "threshold": 0}
    )
    return list(answer.json()["results"]) if answer.status_code == 200 else []
