"""Clusters made beforehand (for image builds), for where `initdb` cannot run or should not have to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from service.clock import monotonic
from service.storage.embedded.cluster import (
    SUPERUSER,
    clear_staging,
    hand_over,
    initialise,
    new_password,
    put_in_place,
    save_superuser,
)
from service.storage.embedded.errors import EmbeddedPostgresError, InitialisationFailed
from service.storage.embedded.identity import Identity, identity_for
from service.storage.embedded.layout import PORT, Layout
from service.storage.embedded.locks import POLL_SECONDS, FileLock
from service.storage.embedded.postmaster import find_postmaster
from service.storage.embedded.programs import find_programs
from service.storage.embedded.server import Server, launch, set_password, start_failure

_MAKING_SECONDS = 120.0
_ENDING_SECONDS = 60.0


def make_template(folder: Path) -> None:
    """Make a cluster for others to copy in `folder`, which must not exist. Everybody may read it: it holds no data,
    and its password is worth nothing, because every copy gets a new one before it is put to use.

    Raises EmbeddedPostgresError.
    """
    if folder.exists():
        raise InitialisationFailed(f"{folder} exists already: remove it, or name another folder for the template")
    with tempfile.TemporaryDirectory(prefix="memvault-") as scratch:
        if os.geteuid() == 0:
            Path(scratch).chmod(0o711)
        layout = Layout(Path(scratch).resolve() / "postgres")
        layout.prepare()
        lock = FileLock(layout.cluster_lock)
        if not lock.try_acquire():
            raise InitialisationFailed(f"{layout.cluster_lock} is locked by a foreign program: try again")
        with lock.open_for_child() as descriptor:
            initialise(
                layout,
                identity_for(layout.folder, layout.data),
                find_programs(),
                deadline=monotonic() + _MAKING_SECONDS,
                durable=False,  # it is copied anyway
                cluster_lock=descriptor,
            )
        folder.mkdir(parents=True)
        shutil.copytree(layout.data, folder / "cluster")
        shutil.copyfile(layout.superuser, folder / "superuser.json")
    for place, _, files in os.walk(folder):
        Path(place).chmod(0o755)
        for name in files:
            Path(place, name).chmod(0o644)


def initialise_from_template(
    layout: Layout, identity: Identity, programs: Path, template: Path, *, deadline: float, cluster_lock: int
) -> None:
    """Copy `template` into place of a new cluster, with a password of its own.

    Raises EmbeddedPostgresError; the place of the cluster is then as empty as before.
    """
    try:
        old_password = str(json.loads((template / "superuser.json").read_text(encoding="utf-8"))["password"])
        staged = clear_staging(layout, identity) / "cluster"
        shutil.copytree(template / "cluster", staged, copy_function=shutil.copyfile)
    except (OSError, ValueError, KeyError) as error:
        raise InitialisationFailed(
            f"{template} is not a readable cluster template: make one with 'memvault postgres-template'"
        ) from error
    for place, _, files in os.walk(staged):
        Path(place).chmod(0o700)
        for name in files:
            Path(place, name).chmod(0o600)
    hand_over(layout.staging, identity)
    password = new_password()
    _change_password(layout, staged, identity, programs, old_password, password, deadline, cluster_lock)
    save_superuser(layout, password)
    put_in_place(layout, staged)


def _change_password(
    layout: Layout,
    staged: Path,
    identity: Identity,
    programs: Path,
    old: str,
    new: str,
    deadline: float,
    cluster_lock: int,
) -> None:
    # With the server's ordinary settings, fsync included; its socket folder lets nobody in who knows the old password.
    process = launch(layout, staged, identity, programs, {}, cluster_lock=cluster_lock)
    try:
        while (found := find_postmaster(staged)) is None or found.status != "ready":
            if process.poll() is not None or monotonic() > deadline:
                raise start_failure(layout)
            time.sleep(POLL_SECONDS)
        server = Server(found.socket_folder or layout.sockets, PORT, SUPERUSER, process.pid, old)
        with psycopg.connect(server.superuser_dsn()) as connection:
            set_password(connection, SUPERUSER, new)
    except psycopg.OperationalError as error:
        raise EmbeddedPostgresError(
            f"the template's own password does not open it ({layout.staging}): make it again with "
            "'memvault postgres-template'"
        ) from error
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # the copy is thrown away: without a clean end it is not put in place
            process.wait()
            raise start_failure(layout) from None
