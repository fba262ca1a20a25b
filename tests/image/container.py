"""Plays the Dockerfile without Docker: its steps in a root of their own, and the image as a container would run it.

Run as a program by `play`, as root in namespaces of its own: it prints one JSON document with how it went. Only the
step that installs packages from an index is not played: what is installed here stands for it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.image.dockerfile import REPOSITORY, Stage, Step, read

PYTHON = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
PREFIX = Path(sys.base_prefix).resolve()
PACKAGES = Path(sysconfig.get_paths()["purelib"])
UID = 10001
_DEVICES = ("null", "zero", "full", "random", "urandom")
_NO_NEW_PRIVS = 38
_START_SECONDS = 120.0
_URL = "http://127.0.0.1:8080"


def mount(*words: str | Path) -> None:
    """Run `mount`."""
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)


class Root:
    """A file system of its own: the libraries and the Python of this machine, and nothing else of it."""

    def __init__(self, place: Path, *, shell: bool) -> None:
        self.place = place
        place.mkdir(mode=0o755)
        self.tree("/usr/lib")
        if (lib64 := Path("/usr/lib64")).exists():
            self.tree(lib64)
        for name in ("lib", "lib64", *(("bin", "sbin") if shell else ())):
            if (link := Path("/", name)).is_symlink():
                (place / name).symlink_to(link.readlink())
            elif link.exists():
                self.tree(link)
        if shell:
            self.tree("/usr/bin")
        self.tree(PREFIX / "lib")
        if not (place / PYTHON.relative_to("/")).exists():
            self.file(PYTHON)
        self.tree(PACKAGES)
        self.file("/etc/ld.so.cache")
        (place / "etc" / "passwd").write_text("root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n")
        for name in _DEVICES:
            self.file(f"/dev/{name}")
        for name in ("proc", "dev/shm", "tmp", "var/lib", "run", "opt"):
            (place / name).mkdir(parents=True, exist_ok=True)
        (place / "tmp").chmod(0o1777)
        mount("--bind", "/proc", place / "proc")
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", place / "dev/shm")

    def at(self, path: str | Path) -> Path:
        """Where a path of this root is in the machine's."""
        return self.place / Path(path).relative_to("/")

    def tree(self, source: str | Path, to: str | Path | None = None) -> None:
        """Show a folder, read-only."""
        target = self.at(to or source)
        target.mkdir(parents=True, exist_ok=True)
        mount("--bind", source, target)
        mount("-o", "remount,bind,ro", target)

    def file(self, source: str | Path) -> None:
        """Show a file."""
        target = self.at(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        mount("--bind", source, target)

    def popen(self, argv: list[str], environ: Mapping[str, str], cwd: str, uid: int = 0) -> subprocess.Popen[bytes]:
        """Start a program in this root, as a user without a right to become another."""
        place, libc = str(self.place), ctypes.CDLL(None, use_errno=True)

        def enter() -> None:
            os.chroot(place)
            os.chdir(cwd)
            os.umask(0o022)
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)

        log = (self.place.parent / "log").open("ab")
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
            return str(PYTHON)  # the one of the base image
        if "/" in command:
            return command
        places = [Path(folder, command) for folder in environ["PATH"].split(":")]
        return next(str(path) for path in places if self.at(path).exists())

    def run(self, argv: list[str], environ: Mapping[str, str], cwd: str, uid: int = 0) -> int:
        """Run a program in this root to its end."""
        return self.popen(argv, environ, cwd, uid).wait(240)


def build(root: Root, stage: Stage) -> list[str]:
    """Play the steps of the stage that makes everything; return the commands that ran."""
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root.at("/tmp"))
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}
    cwd, played = "/", []
    for step in stage.steps:
        if step.name == "ENV":
            environ |= stage.environment
        elif step.name == "WORKDIR":
            cwd = step.value
            root.at(cwd).mkdir(parents=True, exist_ok=True)
        elif step.name == "COPY":
            copy(root, step, cwd)
        elif step.name == "RUN":
            argv = step.argv
            assert argv, step
            if "--require-hashes" in argv:
                take_packages(root, argv[argv.index("--python") + 1])
                continue
            code = root.run(argv, environ, cwd)
            assert code == 0, f"{argv} ended with {code}\n{(root.place.parent / 'log').read_text()[-3000:]}"
            played.append(" ".join(argv))
    return played


def copy(root: Root, step: Step, cwd: str) -> None:
    """Copy files of the checkout."""
    *sources, target = step.value.split()
    for source in sources:
        to = root.at(cwd) / target / (source if target.endswith("/") else "")
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(REPOSITORY / source, to)


def take_packages(root: Root, python: str) -> None:
    """Let what is installed here stand for what would be installed, but for the project itself."""
    (into,) = root.at(python).parents[1].glob("lib/python3*/site-packages")
    for entry in PACKAGES.iterdir():
        if "memvault" not in entry.name and entry.name != "__pycache__":
            (into / entry.name).symlink_to(entry)


def run_image(root: Root, built: Root, image: Stage) -> dict[str, Any]:
    """Make the image's root read-only, serve in it as its user, use the service, end it; return what was seen."""
    root.tree(built.at("/opt/memvault"), "/opt/memvault")
    environ = {"PATH": "/usr/bin", **image.environment}
    for step in image.all("RUN"):
        assert step.argv
        assert root.run(step.argv, environ, "/") == 0, step
    data, uid = image.environment["MEMVAULT_DATA_DIR"], int(image.last("USER").value.split(":")[0])
    volume = root.place.parent / "volume"
    shutil.copytree(root.at(data), volume)
    os.chown(volume, uid, uid)
    mount("--rbind", root.place, root.place)
    mount("-o", "remount,bind,ro", root.place)
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root.at("/tmp"))
    mount("--bind", volume, root.at(data))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    entry, command = image.last("ENTRYPOINT").argv, image.last("CMD").argv
    health = image.last("HEALTHCHECK").argv
    assert entry
    assert command
    assert health
    seen: dict[str, Any] = {"shell": root.at("/bin/sh").exists(), "writable": writable(root, environ, uid)}
    started = time.monotonic()
    service = root.popen([*entry, *command], environ, data, uid)
    try:
        while root.run(health, environ, data, uid) != 0:
            assert service.poll() is None, "the service ended"
            assert time.monotonic() < started + _START_SECONDS, "the service did not become healthy"
            time.sleep(0.2)
        seen["identity"] = identity(service.pid)
        seen |= use(volume)
        children = psutil.Process(service.pid).children(recursive=True)
    finally:
        service.send_signal(signal.SIGTERM)
        seen["code"] = service.wait(60)
    _, left = psutil.wait_procs(children, timeout=30)
    return {**seen, "left": [process.name() for process in left]}


def writable(root: Root, environ: Mapping[str, str], uid: int) -> list[str]:
    """The places of the image that its user can write to."""
    code = (
        "import os, pathlib\n"
        "found = []\n"
        "for place in ('/', '/etc', '/opt/memvault', '/run', '/var', '/usr/lib', '/tmp', '/var/lib/memvault'):\n"
        "    try:\n        pathlib.Path(place, 'x').write_text('x'), os.unlink(place + '/x')\n"
        "    except OSError:\n        continue\n"
        "    found.append(place)\n"
        "pathlib.Path('/tmp/writable').write_text(' '.join(found))\n"
    )
    assert root.run(["python", "-c", code], environ, "/", uid) == 0
    return root.at("/tmp/writable").read_text().split()


def identity(pid: int) -> dict[str, Any]:
    """Who a process is, and what it may: its numbers and its capabilities."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    return {"uids": status["Uid"].split(), "gids": status["Gid"].split(), "capabilities": int(status["CapEff"], 16)}


def use(volume: Path) -> dict[str, Any]:
    """Add a memory and find it."""
    key = json.loads((volume / "credentials.json").read_text())["api_key"]
    with httpx.Client(base_url=_URL, headers={"Authorization": f"Token {key}"}, trust_env=False, timeout=30) as client:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": "I love Italian food"}], "user_id": "alice"}
        added = client.post("/v3/memories/add/", json={**body, "infer": False})
        query = {"query": "What does she like to eat?", "filters": {"user_id": "alice"}}
        found = client.post("/v3/memories/search/", json=query)
        return {"added": added.status_code, "found": [hit["memory"] for hit in found.json()["results"]]}


def main() -> None:
    """Play it all in a place that is removed afterwards."""
    file = read()
    place = Path(tempfile.mkdtemp(prefix="mvimage-", dir="/tmp"))
    place.chmod(0o755)
    mount("-t", "tmpfs", "-o", "mode=0755,size=2g", "tmpfs", place)
    built, image = Root(place / "build", shell=True), Root(place / "image", shell=False)
    played = build(built, file.stages["build"])
    try:
        seen = run_image(image, built, file.stages["runtime"])
    except BaseException:
        sys.stderr.write((place / "log").read_text()[-4000:])
        raise
    json.dump({"played": played, **seen}, sys.stdout)


def play() -> dict[str, Any]:
    """Play it in namespaces for mounts and network; skips the test where that is not allowed."""
    enter = ["unshare", "--mount", "--net", "--propagation", "private"]
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("playing the image needs root, `unshare` and `ip`")
    if subprocess.run([*enter, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel gives no namespaces for mounts and network")
    ended = subprocess.run(
        [*enter, sys.executable, "-m", "tests.image.container"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-6000:]
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


if __name__ == "__main__":
    main()
