"""Dumps and restores the database with PostgreSQL's own programs, in their custom format."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.errors import ConfigurationError, Unavailable
from service.storage.embedded.errors import EmbeddedPostgresError
from service.storage.embedded.programs import find_programs

_LOOK_SECONDS: Final = 0.2
#: What PostgreSQL's programs say may hold values of rows; these words of it are told.
_KNOWN: Final = (
    ("row-level security", "the role may not read past row-level security: it needs BYPASSRLS or to be a superuser"),
    ("server version", "the programs of PostgreSQL here are older than the server"),
    ("permission denied", "the role lacks a right on one of the tables"),
    ("already exists", "the database is not empty"),
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

    _run([*arguments, str(file)], dsn, "restored", told)


def _run(arguments: list[str], dsn: str, what: str, told: Callable[[], None]) -> None:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    password = parts.pop("password", "")
    connection = make_conninfo("", **parts)
    program = _program(arguments[0])
    command = [str(program), "--no-password"]
    command += [f"--dbname={connection}" if one == "--dbname=" else one for one in arguments[1:]]
    if "--dbname=" not in arguments:
        command.append(f"--dbname={connection}")
    # The password goes by the environment, where no other user of the machine sees it.
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "HOME") if name in os.environ}
    environment |= {"PGPASSWORD": password, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "10"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    try:
        while process.poll() is None:
            told()
            time.sleep(_LOOK_SECONDS)
        assert process.stderr is not None
        errors = process.stderr.read().decode(errors="replace")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()
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
