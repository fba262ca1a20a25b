"""Starts the PostgreSQL programs: as which user, with which environment, and within reach of what they need."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

from service.storage.embedded.errors import CannotDropRoot, FolderRefused
from service.storage.embedded.identity import Identity, closed_above, unreachable
from service.storage.embedded.mounts import MountsRefused, run_in_private_mounts
from service.storage.embedded.programs import read_by

# Postgres gets an environment of its own: ours may hold secrets, and PG… variables would change what it does. The two
# kinds that pass are how a platform can give a name to a random user id (nss_wrapper).
_PASSED_ON = ("LD_PRELOAD", "LD_LIBRARY_PATH", "NSS_WRAPPER_PASSWD", "NSS_WRAPPER_GROUP")


def spawn(
    program: Path,
    *arguments: str,
    identity: Identity,
    reach: Collection[Path],
    cluster_lock: int,
    output: int | IO[bytes],
    become_named: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `program` as `identity` and return at once; it inherits `cluster_lock`, stdout and stderr are `output`.

    `reach` are the files and folders of the cluster it needs; it finds them, and the programs, also below folders
    that its user may not enter. `become_named` is from `enter_named_namespace`.
    Raises FolderRefused where that is forbidden, CannotDropRoot, or subprocess.SubprocessError from `become_named`.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        try:
            process = subprocess.Popen(
                [str(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(),
                cwd="/",
                # A session of its own: Ctrl-C reaches the whole foreground group, but we decide who ends first.
                start_new_session=True,
                umask=0o077,
                pass_fds=(cluster_lock,),
                preexec_fn=become_named,
                **identity.process_options(),
            )
        except PermissionError as error:
            raise CannotDropRoot(
                f"the system does not let us start {program} as user id {identity.uid}: run memvault as a normal user, "
                "or allow the capabilities SETUID and SETGID"
            ) from error
        started.append(process)

    try:
        _run_within_reach(start, identity, program.parent, reach)
    except BaseException:  # interrupted, when the process was there already
        for process in started:
            process.kill()
            process.wait()
        raise
    return started[0]


def check_reach(folder: Path, identity: Identity, programs: Path) -> None:
    """Raise FolderRefused if `identity` has no way to `folder` or `programs`, neither its own nor one that we make."""
    _run_within_reach(lambda: None, identity, programs, [folder])


def _run_within_reach(start: Callable[[], None], identity: Identity, programs: Path, reach: Collection[Path]) -> None:
    wheel = read_by(programs)
    _check_readable(wheel, programs, identity)
    closed = {path: folder for path in (*reach, *wheel) if (folder := closed_above(path, identity)) is not None}
    if not closed:
        start()
        return
    try:
        run_in_private_mounts(
            start,
            closed=set(closed.values()),
            shown=[path for path in reach if path in closed],
            fixed=[path for path in wheel if path in closed],
        )
    except MountsRefused as error:
        path, folder = next(iter(closed.items()))
        if path in wheel:
            raise unreachable(
                folder,
                identity,
                purpose="the PostgreSQL programs",
                elsewhere="install memvault in a folder that everybody may enter",
            ) from error
        raise unreachable(
            folder, identity, purpose="the data", elsewhere="choose --data-dir /var/lib/memvault or the like"
        ) from error


def _check_readable(wheel: Collection[Path], programs: Path, identity: Identity) -> None:
    for path in (*wheel, programs, programs / "postgres") if identity.dropped else ():
        if not identity.may(stat.S_IROTH | stat.S_IXOTH, path):
            raise FolderRefused(
                f"Postgres does not run as root but as user id {identity.uid}, which cannot read {path} (mode "
                f"{stat.S_IMODE(path.stat().st_mode):04o}): install memvault with umask 022, run memvault as a normal "
                f"user, or allow it yourself with: chmod -R go+rX {' '.join(map(str, wheel))}"
            )


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"} | passed
