"""File systems of their own for programs, made of mounts: what a container sees, without an engine for containers."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

PYTHON = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
PREFIX = Path(sys.base_prefix).resolve()
PACKAGES = Path(sysconfig.get_paths()["purelib"])
#: Where a root shows them: no mount of an image comes over it, wherever the checkout lies.
SHOWN = Path("/srv/packages")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_NO_NEW_PRIVS = 38
_DROP_FROM_BOUNDS = 24
#: The numbers of the capabilities that something here is given.
CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1}


def mount(*words: str | Path) -> None:
    """Run `mount`."""
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)


class Root:
    """A file system that programs can be started in; what they print goes to a log beside it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.log = place.with_name(f"{place.name}.log")
        #: The group of what runs as a user here, if it is not the one of the user's number.
        self.group: int | None = None
        place.mkdir(mode=0o755)

    @classmethod
    def of_this_machine(cls, place: Path, *, shell: bool) -> Root:
        """The libraries and the Python of this machine, and nothing else of it."""
        root = cls(place)
        root.tree("/usr/lib")
        if (lib64 := Path("/usr/lib64")).exists():
            root.tree(lib64)
        for name in ("lib", "lib64", *(("bin", "sbin") if shell else ())):
            if (link := Path("/", name)).is_symlink():
                (place / name).symlink_to(link.readlink())
            elif link.exists():
                root.tree(link)
        if shell:
            root.tree("/usr/bin")
        root.tree(PREFIX / "lib")
        if not root.at(PYTHON).exists():
            root.file(PYTHON)
        root.tree(PACKAGES, SHOWN)
        root.file("/etc/ld.so.cache")
        # Names as any base image has some: `initdb` runs under one of a user without a process, and what runs outside
        # can be seen here.
        users = {"root": 0, "daemon": 1, "games": 5, "mail": 8, "news": 9, "backup": 34, "nobody": 65534}
        (place / "etc" / "passwd").write_text(
            "".join(f"{name}:x:{number}:{number}::/:/\n" for name, number in users.items())
        )
        for name in _DEVICES:
            root.file(f"/dev/{name}")
        for name in ("proc", "dev/shm", "tmp", "var/lib", "run", "opt"):
            (place / name).mkdir(parents=True, exist_ok=True)
        (place / "tmp").chmod(0o1777)
        mount("--bind", "/proc", place / "proc")
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", place / "dev/shm")
        return root

    @classmethod
    def like(cls, place: Path, image: Root) -> Root:
        """Another root with what one shows, for mounts of its own."""
        root = cls(place)
        mount("--rbind", image.place, place)
        return root

    def at(self, path: str | Path) -> Path:
        """Where a path of this root is in the machine's."""
        return self.place / Path(path).relative_to("/")

    def tree(self, source: str | Path, to: str | Path | None = None, *, writable: bool = False) -> None:
        """Show a folder, read-only unless told otherwise."""
        target = self.at(to or source)
        if not target.exists():
            target.mkdir(parents=True)
        mount("--bind", source, target)
        if not writable:
            mount("-o", "remount,bind,ro", target)

    def file(self, source: str | Path) -> None:
        """Show a file."""
        target = self.at(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        mount("--bind", source, target)

    def memory(self, path: str, options: str = "") -> None:
        """Put an empty folder in memory there."""
        mount("-t", "tmpfs", "-o", options or "mode=1777", "tmpfs", self.at(path))

    def freeze(self) -> None:
        """Make it read-only; what is shown in it stays as it is."""
        mount("--rbind", self.place, self.place)
        mount("-o", "remount,bind,ro", self.place)

    def popen(
        self,
        argv: list[str],
        environ: Mapping[str, str],
        cwd: str,
        uid: int = 0,
        capabilities: Sequence[str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in this root, as a user without a right to become another; root may have few rights."""
        kept = None if capabilities is None else {CAPABILITIES[name] for name in capabilities}
        place, libc = str(self.place), ctypes.CDLL(None, use_errno=True)

        def enter() -> None:
            os.chroot(place)
            os.chdir(cwd)
            os.umask(0o022)
            for number in range(64) if kept is not None else ():
                if number not in kept:
                    libc.prctl(_DROP_FROM_BOUNDS, number, 0, 0, 0)
            if uid:
                os.setgroups([])
                os.setgid(uid if self.group is None else self.group)
                os.setuid(uid)
                libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)

        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self._found(argv[0], environ), *argv[1:]],
                env=dict(environ),
                preexec_fn=enter,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _found(self, command: str, environ: Mapping[str, str]) -> str:
        """Where an exec form finds its program."""
        if command == "python":
            return str(PYTHON)  # the one of the base image, unless an environment comes before it on the path
        if "/" in command:
            return command
        places = [Path(folder, command) for folder in environ["PATH"].split(":")]
        return next(str(path) for path in places if self.at(path).exists())

    def run(self, argv: list[str], environ: Mapping[str, str], cwd: str, uid: int = 0) -> int:
        """Run a program in this root to its end."""
        return self.popen(argv, environ, cwd, uid).wait(240)

    @property
    def printed(self) -> str:
        """What programs in it printed."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""
