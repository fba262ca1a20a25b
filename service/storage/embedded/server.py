"""A running server: how to start its process and how to reach it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from service.storage.embedded.configuration import ACCESS_RULES, configuration_text
from service.storage.embedded.errors import StartFailed
from service.storage.embedded.identity import Identity
from service.storage.embedded.layout import PORT, Layout
from service.storage.embedded.postmaster import Postmaster
from service.storage.embedded.spawning import spawn


@dataclass(frozen=True)
class Server:
    """A running server, ours or one that another process of the same installation started."""

    socket_dir: Path
    port: int
    superuser: str
    pid: int
    password: str = field(repr=False)

    def dsn(self, *, dbname: str, user: str, password: str) -> str:
        """Return a libpq connection string over the private Unix socket."""
        return make_conninfo(host=str(self.socket_dir), port=self.port, dbname=dbname, user=user, password=password)

    def superuser_dsn(self, dbname: str = "postgres") -> str:
        """Return the superuser's connection string; for the set-up of an installation only."""
        return self.dsn(dbname=dbname, user=self.superuser, password=self.password)


def launch(
    layout: Layout, data: Path, identity: Identity, programs: Path, settings: Mapping[str, str], *, cluster_lock: int
) -> subprocess.Popen[bytes]:
    """Start the server process on `data` and return at once; it inherits `cluster_lock` for as long as it lives.

    The caller holds the cluster's lock, so whatever an earlier server left behind is stale and goes first.
    """
    (data / "postmaster.pid").unlink(missing_ok=True)
    layout.remove_socket_files(identity)
    sockets = layout.socket_folder(identity)
    layout.make_cluster_folder(layout.logs, identity)
    layout.remove_old_logs()
    layout.write(layout.access_rules, ACCESS_RULES, reader=identity)
    layout.write(
        layout.configuration,
        configuration_text(sockets=sockets, logs=layout.logs, access_rules=layout.access_rules, overrides=settings),
        reader=identity,
    )
    layout.write(layout.start_log, "")
    # Root may be at work in another user's folder: no link is followed.
    with open(layout.start_log, "ab", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW)) as output:
        return spawn(
            programs / "postgres",
            "-D",
            str(data),
            "-c",
            f"config_file={layout.configuration}",
            identity=identity,
            reach=[data, sockets, layout.logs, layout.configuration, layout.access_rules],
            cluster_lock=cluster_lock,
            output=output,
        )


def server_of(layout: Layout, postmaster: Postmaster) -> Server:
    """Return the server behind a ready postmaster with the password from our file. Raises StartFailed without it."""
    try:
        secret = json.loads(layout.superuser.read_text(encoding="utf-8"))
        user, password = str(secret["user"]), str(secret["password"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartFailed(
            f"the password of the database cannot be read from {layout.superuser}: run memvault as the user that owns "
            "the file, or restore it from your backup"
        ) from error
    return Server(
        socket_dir=postmaster.socket_folder or layout.sockets,
        port=postmaster.port or PORT,
        superuser=user,
        pid=postmaster.process.pid,
        password=password,
    )


def try_connect(server: Server) -> str | None:
    """Log in once. None if that works, else the reason in one line."""
    try:
        psycopg.connect(server.superuser_dsn(), connect_timeout=5).close()
    except psycopg.OperationalError as error:
        return str(error).strip().splitlines()[-1]
    return None


def start_failure(layout: Layout) -> StartFailed:
    """Return the error for a server that ended instead of starting, with its own last word if it said one."""
    lines = layout.start_log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    reason = f" ({said[-1]})" if said else ""
    return StartFailed(
        f"the database in {layout.data} did not start{reason}: see {layout.start_log} and the newest file in "
        f"{layout.logs}, and check free space"
    )


def set_password(connection: psycopg.Connection[tuple[object, ...]], role: str, password: str) -> None:
    """Set a role's password; only its SCRAM verifier travels, so no server setting can write the password down."""
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))
