"""Dumps and restores the database with PostgreSQL's own programs, in their custom format."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.errors import ConfigurationError, Unavailable
from service.storage.embedded.errors import EmbeddedPostgresError
from service.storage.embedded.programs import find_programs

_LOOK_SECONDS: Final = 0.2
#: From here on a server knows all settings that the programs of 17 and 18 begin a script with.
_KNOWS_ALL: Final = 170000
_NEWER: Final = b"SET transaction_timeout "
_HEAD_LINES: Final = 60
#: What PostgreSQL's programs say may hold values of rows; these words of it are told.
_KNOWN: Final = (
    ("row-level security", "the role may not read past row-level security: it needs BYPASSRLS or to be a superuser"),
    ("server version", "the programs of PostgreSQL here are older than the server"),
    ("permission denied", "the role lacks a right on one of the tables"),
    ("already exists", "the database is not empty"),
    ("No space left", "there is no room on the disk"),
    ("does not exist", "a role or an extension that the dump names is not on this server"),
)


def dump(dsn: str, file: Path, *, progress: Callable[[int], None] = lambda bytes_: None) -> None:
    """Write a consistent dump of the whole database, while it is in use; `progress` is told its size so far.

    Raises:
        ConfigurationError: when the role of `dsn` may not read everything, or the program is missing.
    """
    _run(["pg_dump", "--format=custom", f"--file={file}"], dsn, "dumped", lambda: progress(_size(file)))
    file.chmod(0o600)


def restore(dsn: str, file: Path, *, owner: bool, progress: Callable[[int], None] = lambda ticks: None) -> None:
    """Fill an empty database from a dump, all of it or nothing. With `owner` its objects keep their owners.

    Raises:
        ConfigurationError: when it cannot be done; the database is as empty as before.
    """
    arguments = ["pg_restore", "--exit-on-error", "--single-transaction", "--dbname="]
    if not owner:
        arguments.append("--no-owner")
    ticks = 0

    def told() -> None:
        nonlocal ticks
        ticks += 1
        progress(ticks)

    if _server_version(dsn) >= _KNOWS_ALL:
        _run([*arguments, str(file)], dsn, "restored", told)
        return
    script = ["--file=-", *([] if owner else ["--no-owner"]), str(file)]
    arguments = ["psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--file=-"]
    _run(arguments, dsn, "restored", told, feed=partial(_feed, script))


def _server_version(dsn: str) -> int:
    try:
        with psycopg.connect(dsn, connect_timeout=10) as connection:
            return connection.info.server_version
    except psycopg.OperationalError:
        raise Unavailable("the database could not be restored: Postgres does not answer") from None


def _feed(script: list[str], process: subprocess.Popen[bytes]) -> None:
    """Write a dump as SQL into a process, without what servers older than the programs do not know."""
    assert process.stdin is not None
    command = [str(_program("pg_restore")), *script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()) as unpacking:
        assert unpacking.stdout is not None
        try:
            for line in islice(unpacking.stdout, _HEAD_LINES):
                if not line.startswith(_NEWER):
                    process.stdin.write(line)
            shutil.copyfileobj(unpacking.stdout, process.stdin)
        except OSError:
            # The process ended before its input did; it says why.
            unpacking.kill()
            return
    if unpacking.returncode != 0:
        # The end of the input would be the end of the transaction, with a part of the rows.
        process.kill()
    with suppress(OSError):
        process.stdin.close()


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "HOME") if name in os.environ}


def _run(
    arguments: list[str],
    dsn: str,
    what: str,
    told: Callable[[], None],
    *,
    feed: Callable[[subprocess.Popen[bytes]], None] | None = None,
) -> None:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    password = parts.pop("password", "")
    connection = make_conninfo("", **parts)
    program = _program(arguments[0])
    command = [str(program), "--no-password"]
    command += [f"--dbname={connection}" if one == "--dbname=" else one for one in arguments[1:]]
    if "--dbname=" not in arguments:
        command.append(f"--dbname={connection}")
    # The password goes by the environment, where no other user of the machine sees it.
    environment = _environment() | {"PGPASSWORD": password, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "10"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )
    feeding = None if feed is None else threading.Thread(target=feed, args=(process,), daemon=True)
    try:
        if feeding is not None:
            feeding.start()
        while process.poll() is None:
            told()
            time.sleep(_LOOK_SECONDS)
        assert process.stderr is not None
        errors = process.stderr.read().decode(errors="replace")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if feeding is not None:
            feeding.join()
        if process.stderr is not None:
            process.stderr.close()
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
    if process.returncode != 0:
        raise _failure(arguments[0], what, errors)


def _failure(program: str, what: str, errors: str) -> Exception:
    for words, why in _KNOWN:
        if words in errors:
            return ConfigurationError(f"{program}: the database could not be {what}: {why}")
    if "connection" in errors:
        return Unavailable(f"{program}: the database could not be {what}: Postgres does not answer")
    return ConfigurationError(f"{program}: the database could not be {what}; run it by hand to see why")


def _program(name: str) -> Path:
    try:
        found = find_programs() / name
        if found.is_file():
            return found
    except EmbeddedPostgresError:
        pass
    other = shutil.which(name)
    if other is None:
        raise ConfigurationError(f"{name}: is not installed; it comes with PostgreSQL's client programs")
    return Path(other)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
