"""Plays the Dockerfile and docker-compose.yml without Docker: the build's steps, one container, and the composition.

Run as a program by `play`, as root in namespaces of its own: it prints one JSON document with how it went. Only the
step that installs packages from an index is not played: what is installed here stands for it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.image.compose import services
from tests.image.dockerfile import REPOSITORY, Stage, Step, read
from tests.image.roots import PACKAGES, SHOWN, Root, mount

_START_SECONDS = 120.0
#: An admin key of 32 characters and more, as `bootstrap_key` wants it.
_KEY = "a-bootstrap-key-for-this-test-alone-" + "0" * 12
URL = "http://127.0.0.1:8080"


def build(root: Root, stage: Stage) -> list[str]:
    """Play the steps of the stage that makes everything; return the commands that ran."""
    root.memory("/tmp")
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
            assert code == 0, f"{argv} ended with {code}\n{root.printed[-3000:]}"
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
            (into / entry.name).symlink_to(SHOWN / entry.name)


def assemble(root: Root, built: Root, image: Stage, settings: Mapping[str, str]) -> None:
    """Make the image, and the places at which something is mounted, as an engine does; then nobody writes to it."""
    root.tree(built.at("/opt/memvault"), "/opt/memvault")
    for step in image.all("RUN"):
        assert step.argv
        assert root.run(step.argv, {"PATH": "/usr/bin"}, "/") == 0, step
    hosts = " ".join(["localhost", *services()])
    root.at("/etc/hosts").write_text(f"127.0.0.1 {hosts}\n")
    for path, text in settings.items():
        root.at(path).write_text(text)
    for service in services().values():
        for path in (*service.mounts, *service.tmpfs) if service.is_ours else ():
            root.at(path).mkdir(parents=True, exist_ok=True)
    root.freeze()


def user(image: Stage) -> int:
    """The number of the image's user."""
    return int(image.last("USER").value.split(":")[0])


def run_image(root: Root, image: Stage) -> dict[str, Any]:
    """Serve as a lone container does, use the service, end it; return what was seen."""
    environ = {"PATH": "/usr/bin", **image.environment}
    data, uid = image.environment["MEMVAULT_DATA_DIR"], user(image)
    volume = root.place.with_name("volume")
    shutil.copytree(root.at(data), volume)
    there = root.at(data).stat()
    os.chown(volume, there.st_uid, there.st_gid)
    root.memory("/tmp")
    root.tree(volume, data, writable=True)
    entry, command = image.last("ENTRYPOINT").argv, image.last("CMD").argv
    health = image.last("HEALTHCHECK").argv
    assert entry
    assert command
    assert health
    seen: dict[str, Any] = {"shell": root.at("/bin/sh").exists(), "writable": writable(root, environ, uid)}
    service = root.popen([*entry, *command], environ, data, uid)
    try:
        wait_healthy(service, root, health, environ, uid)
        seen["identity"] = identity(service.pid)
        key = json.loads((volume / "credentials.json").read_text())["api_key"]
        seen |= use(key)
        children = psutil.Process(service.pid).children(recursive=True)
    finally:
        service.send_signal(signal.SIGTERM)
        seen["code"] = service.wait(60)
    _, left = psutil.wait_procs(children, timeout=30)
    return {**seen, "left": [process.name() for process in left]}


def run_as_another(root: Root, image: Stage) -> dict[str, Any]:
    """Serve as where the platform chooses the user: a number that the image does not know, and its group 0.

    The data folder is an empty one for everybody, and the secrets are files of root's, as Kubernetes mounts them.
    """
    uid, root.group = 1_000_650_000, 0
    environ = {"PATH": "/usr/bin", **image.environment, "MEMVAULT_SECRETS_DIR": "/run/memvault/secrets"}
    given = root.place.with_name("given")
    given.mkdir(mode=0o755)
    (given / "MEMVAULT_BOOTSTRAP_KEY").write_text(_KEY)
    (given / "MEMVAULT_BOOTSTRAP_KEY").chmod(0o440)
    root.memory("/tmp")
    root.memory(environ["MEMVAULT_DATA_DIR"], "mode=0777")
    root.tree(given, environ["MEMVAULT_SECRETS_DIR"])
    entry, command = image.last("ENTRYPOINT").argv, image.last("CMD").argv
    health = image.last("HEALTHCHECK").argv
    assert entry
    assert command
    assert health
    service = root.popen([*entry, *command], environ, image.last("WORKDIR").value, uid)
    try:
        wait_healthy(service, root, health, environ, uid)
        seen = {"identity": identity(service.pid), **use(_KEY)}
    finally:
        service.send_signal(signal.SIGTERM)
        code = service.wait(60)
    return {**seen, "code": code}


def wait_healthy(
    service: subprocess.Popen[bytes], root: Root, health: list[str], environ: Mapping[str, str], uid: int
) -> None:
    """Return when the image's own probe says that a service serves."""
    started = time.monotonic()
    while root.run(health, environ, "/", uid) != 0:
        assert service.poll() is None, f"the service ended\n{root.printed[-3000:]}"
        assert time.monotonic() < started + _START_SECONDS, f"the service is not healthy\n{root.printed[-3000:]}"
        time.sleep(1)  # as an engine does, which asks now and then: each probe takes a third of a second of a core


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
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {"uids": status["Uid"].split(), "gids": status["Gid"].split(), "capabilities": int(status["CapEff"], 16)}


def client(key: str) -> httpx.Client:
    """A client of the service."""
    return httpx.Client(base_url=URL, headers={"Authorization": f"Token {key}"}, trust_env=False, timeout=60)


def use(key: str) -> dict[str, Any]:
    """Add a memory and find it."""
    with client(key) as service:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": "I love Italian food"}], "user_id": "alice"}
        added = service.post("/v3/memories/add/", json={**body, "infer": False})
        return {"added": added.status_code, "found": find(service)}


def find(service: httpx.Client) -> list[str]:
    """Search for it by its meaning."""
    query = {"query": "What does she like to eat?", "filters": {"user_id": "alice"}}
    answer = service.post("/v3/memories/search/", json=query)
    assert answer.status_code == 200, answer.text
    return [hit["memory"] for hit in answer.json()["results"]]


def main(place: Path) -> None:
    """Play it all in a folder in memory, which goes with the namespace."""
    from tests.image.composition import compose

    file = read()
    mount("-t", "tmpfs", "-o", "mode=0755,size=3g", "tmpfs", place)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    built = Root.of_this_machine(place / "build", shell=True)
    image = Root.of_this_machine(place / "image", shell=False)
    runtime = file.stages["runtime"]
    played = build(built, file.stages["build"])
    # What stands for a Qdrant server here speaks HTTP only.
    assemble(image, built, runtime, {"/etc/memvault.yaml": "index: {grpc_port: null}\n"})
    alone = run_image(Root.like(place / "alone", image), runtime)
    another = run_as_another(Root.like(place / "another", image), runtime)
    composed = compose(place, image, runtime, ["--config", "/etc/memvault.yaml"])
    json.dump({"played": played, "alone": alone, "another": another, "composed": composed}, sys.stdout)


def play() -> dict[str, Any]:
    """Play it in namespaces for mounts and network, once; skips the test where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("playing the image needs root, `unshare` and `ip`")
    ended = played()
    if ended is None:
        pytest.skip("this kernel gives no namespaces for mounts and network")
    assert ended.returncode == 0, ended.stderr[-6000:]
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


@cache
def played() -> subprocess.CompletedProcess[str] | None:
    """How it ended; None where there are no namespaces."""
    enter = ["unshare", "--mount", "--net", "--propagation", "private"]
    if subprocess.run([*enter, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode:
        return None
    with tempfile.TemporaryDirectory(prefix="mvimage-", dir="/tmp") as place:
        command = [*enter, sys.executable, "-m", "tests.image.container", place]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=840, check=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
