"""Makes a new cluster beside its final place and moves it there in one step."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from service.clock import monotonic
from service.storage.embedded.errors import InitialisationFailed, WrongVersion
from service.storage.embedded.identity import Identity, has_name
from service.storage.embedded.layout import Layout, sync_folder
from service.storage.embedded.namespace import enter_named_namespace
from service.storage.embedded.programs import MAJOR_VERSION
from service.storage.embedded.spawning import spawn

SUPERUSER = "postgres"


def new_password() -> str:
    """Return a random password (256 bits)."""
    return secrets.token_urlsafe(32)


def save_superuser(layout: Layout, password: str) -> None:
    """Write the superuser's name and password into its file, mode 0600."""
    layout.write(layout.superuser, json.dumps({"user": SUPERUSER, "password": password}) + "\n")


def check_version(layout: Layout) -> None:
    """Raise WrongVersion unless the cluster was made by our major version."""
    found = (layout.data / "PG_VERSION").read_text(encoding="utf-8").strip()
    if found != str(MAJOR_VERSION):
        raise WrongVersion(
            f"{layout.data} was made by PostgreSQL {found}, and this is PostgreSQL {MAJOR_VERSION}: start it with the "
            "version of memvault that made it"
        )


def clear_staging(layout: Layout, identity: Identity) -> Path:
    """Remove what a killed initialisation left and return the empty staging folder (0700, the cluster user's)."""
    if layout.staging.exists():
        shutil.rmtree(layout.staging)
    layout.make_cluster_folder(layout.staging, identity)
    return layout.staging


def put_in_place(layout: Layout, staged: Path) -> None:
    """Move the finished cluster to its place, durably, and remove the staging folder."""
    staged.rename(layout.data)
    sync_folder(layout.folder)
    shutil.rmtree(layout.staging)


def initialise(
    layout: Layout, identity: Identity, programs: Path, *, deadline: float, durable: bool, cluster_lock: int
) -> None:
    """Run `initdb`: checksums, UTF-8, a locale that needs nothing of the system, SCRAM.

    `cluster_lock` is inherited by `initdb`: if we are killed, the next start sees until when it is still at work.
    Raises InitialisationFailed; the place of the cluster is then as empty as before.
    """
    password = new_password()
    for route in _routes(identity):
        runner, become_named = route
        staging = clear_staging(layout, runner)
        secret = staging / "password"
        with open(secret, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(password)
        runner.take_over(secret)
        arguments = [
            f"--pgdata={staging / 'cluster'}",
            f"--username={SUPERUSER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--data-checksums",
            "--no-instructions",
            *([] if durable else ["--no-sync"]),
        ]
        try:
            process = spawn(
                programs / "initdb",
                *arguments,
                identity=runner,
                reach=[staging],
                cluster_lock=cluster_lock,
                output=subprocess.PIPE,
                become_named=become_named,
            )
        except subprocess.SubprocessError:
            continue  # the namespace is forbidden here: the next route
        said = _said_by(process, layout, timeout=max(1.0, deadline - monotonic()))
        if process.returncode != 0:
            last = said.strip().splitlines()[-1:] or ["no message"]
            raise InitialisationFailed(f"initdb failed in {layout.folder}: {last[0]}")
        if runner != identity:
            hand_over(staging, identity)
        save_superuser(layout, password)
        put_in_place(layout, staging / "cluster")
        return
    raise InitialisationFailed(
        f"user id {identity.uid} has no entry in the user database, which initdb needs, and user namespaces are "
        "forbidden here: run memvault as a user with a name, or point database.embedded_template to a cluster made "
        "with 'memvault postgres-template'"
    )


def _said_by(process: subprocess.Popen[bytes], layout: Layout, *, timeout: float) -> str:
    """Wait for `initdb` to end and return what it wrote to stderr; if we cannot wait any longer, it is killed."""
    with process:
        try:
            _, said = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise InitialisationFailed(
                f"initdb did not finish in {timeout:.0f} s in {layout.folder}: try again, and check the disk"
            ) from error
        except BaseException:
            process.kill()
            raise
    return said.decode(errors="replace")


def _routes(identity: Identity) -> list[tuple[Identity, Callable[[], None] | None]]:
    """Return the ways to run `initdb`, best first: as whom, and what the child does to have a name."""
    if has_name(identity.uid):
        return [(identity, None)]
    routes: list[tuple[Identity, Callable[[], None] | None]] = []
    become_named = enter_named_namespace(identity.uid, identity.gid)
    if become_named is not None:
        routes.append((identity, become_named))
    if identity.dropped:
        # A container's root often may not make namespaces. It may become any user: for this second one that has a name
        # and no process of its own, which therefore nobody can use to look over our shoulder. The files change hands
        # before anything is stored in them.
        busy = {process.info["uids"].real for process in psutil.process_iter(["uids"]) if process.info["uids"]}
        idle = next((e for e in pwd.getpwall() if e.pw_uid != 0 and e.pw_uid not in busy), None)
        if idle is not None:
            routes.append((Identity(idle.pw_uid, idle.pw_gid, dropped=True), None))
    return routes


def hand_over(staging: Path, identity: Identity) -> None:
    """Give the staging folder and everything in it to the cluster user."""
    for folder, folders, files in os.walk(staging):
        for name in [*folders, *files]:
            identity.take_over(Path(folder, name))
    identity.take_over(staging)
