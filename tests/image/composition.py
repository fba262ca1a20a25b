"""Plays docker-compose.yml: each container of our image with its own root, user, environment, volumes and secrets.

PostgreSQL and Qdrant are what the tests have for them, set up by the files that Compose would give to theirs, and all
names lead to this machine.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.conninfo import conninfo_to_dict

from service.storage.embedded import EmbeddedPostgres
from tests.image.compose import Service, services
from tests.image.container import client, find, use, user, wait_healthy
from tests.image.dockerfile import REPOSITORY, Stage
from tests.image.roots import Root

_SECONDS = 60.0
_KEY = re.compile(r"mv_[\w-]+")


class Composition:
    """The containers, and the volumes that they share."""

    def __init__(self, place: Path, image: Root, stage: Stage, more: list[str]) -> None:
        self.place = place / "composed"
        self.volumes = self.place / "volumes"
        self.volumes.mkdir(parents=True, mode=0o755)
        self.services = services()
        self._image, self._stage, self._more = image, stage, more
        self._number = 0

    def volume(self, name: str, path: str) -> Path:
        """A volume, made with the owner that the image has at the path, as Docker makes it."""
        folder = self.volumes / name
        if not folder.exists():
            folder.mkdir(mode=0o755)
            there = self._image.at(path).stat()
            os.chown(folder, there.st_uid, there.st_gid)
            folder.chmod(there.st_mode & 0o7777)
        return folder

    def root(self, service: Service) -> Root:
        """The file system of a new container."""
        self._number += 1
        root = Root.like(self.place / f"{service.name}-{self._number}", self._image)
        assert service.told["read_only"] is True
        for path, options in service.tmpfs.items():
            root.memory(path, options)
        for path, source in service.mounts.items():
            folder = REPOSITORY / source if source.startswith(".") else self.volume(source, path)
            root.tree(folder, path, writable=path not in service.read_only)
        return root

    def environ(self, service: Service) -> dict[str, str]:
        """What its process finds in the environment."""
        return {**self._stage.environment, **service.environment}

    def argv(self, service: Service) -> list[str]:
        """What it runs."""
        entry = service.told.get("entrypoint") or self._stage.last("ENTRYPOINT").argv
        command = service.told.get("command") or ([] if "entrypoint" in service.told else self._stage.last("CMD").argv)
        if entry[0] == "python":
            # The environment's own comes first on the path of the image.
            entry = ["/opt/memvault/bin/python", *entry[1:]]
        return [*entry, *command, *(self._more if service.name in ("service", "worker") else [])]

    def uid(self, service: Service) -> int:
        """Whose process it is."""
        return int(service.told["user"].split(":")[0])

    def start(self, name: str) -> tuple[subprocess.Popen[bytes], Root]:
        """Start a container."""
        service = self.services[name]
        root = self.root(service)
        cwd = self._stage.last("WORKDIR").value
        assert service.told["cap_drop"] == ["ALL"]
        rights = service.told.get("cap_add", [])
        return root.popen(self.argv(service), self.environ(service), cwd, self.uid(service), rights), root

    def run(self, name: str) -> str:
        """Run a container to its end, which must be a good one, and return what it printed."""
        process, root = self.start(name)
        code = process.wait(120)
        assert code == 0, f"{name} ended with {code}\n{root.printed[-3000:]}"
        return root.printed

    def serve(self) -> tuple[subprocess.Popen[bytes], Root]:
        """Start the service and wait until it is healthy."""
        process, root = self.start("service")
        health = self._stage.last("HEALTHCHECK").argv
        assert health
        wait_healthy(process, root, health, self.environ(self.services["service"]), user(self._stage))
        return process, root


def compose(place: Path, image: Root, stage: Stage, more: list[str]) -> dict[str, Any]:
    """Bring all of it up, follow the hint to the first key, use it, and bring it up once more; return what was seen."""
    all_of_it = Composition(place, image, stage, more)
    with ExitStack() as stack:
        all_of_it.run("secrets")
        seen: dict[str, Any] = {"files": files(all_of_it.volumes)}
        admin = stack.enter_context(postgres(place / "postgres", all_of_it.volumes / "secrets-postgres"))
        stack.enter_context(qdrant(all_of_it.volumes / "secrets-qdrant"))
        all_of_it.run("migrate")
        seen["roles"] = roles(admin)
        worker, worker_root = all_of_it.start("worker")
        stack.callback(_end, worker)
        service, root = all_of_it.serve()
        stack.callback(_end, service)
        seen["hint"] = all_of_it.run("first-key")
        key = first_key(seen["hint"], all_of_it, root)
        seen |= use(key)
        seen["printed"] = [bool(_KEY.search(text.replace(key, ""))) for text in (root.printed, worker_root.printed)]
        probe = all_of_it.services["worker"].told["healthcheck"]["test"]
        assert probe[0] == "CMD"
        worker_is = all_of_it.services["worker"]
        wait_healthy(worker, worker_root, probe[1:], all_of_it.environ(worker_is), all_of_it.uid(worker_is))
        seen["sealed"] = wait_sealed(all_of_it.volumes / "checkpoints", worker)
        seen["codes"] = [_end(service), _end(worker)]
        # Up again, with containers made anew: nothing that lasts was in them.
        all_of_it.run("secrets")
        again, _ = all_of_it.serve()
        stack.callback(_end, again)
        with client(key) as served:
            seen["again"] = find(served)
    return seen


def first_key(hint: str, all_of_it: Composition, root: Root) -> str:
    """Do what the hint says, in the container of the service."""
    (line,) = [line.strip() for line in hint.splitlines() if "docker compose exec" in line]
    name, command = re.fullmatch(r"docker compose exec (\w+) (memvault .+)", line).groups()  # type: ignore[union-attr]
    service = all_of_it.services[name]
    before = len(root.printed)
    code = root.run([*command.split()], all_of_it.environ(service), "/", all_of_it.uid(service))
    said = root.printed[before:]
    assert code == 0, said
    found = _KEY.search(said)
    assert found, said
    return found.group()


def files(volumes: Path) -> dict[str, dict[str, list[Any]]]:
    """Every secret by its volume, with its mode and owner."""
    return {
        folder.name: {path.name: [oct(path.stat().st_mode & 0o777), path.stat().st_uid] for path in folder.iterdir()}
        for folder in volumes.iterdir()
        if folder.name.startswith("secrets")
    }


@contextmanager
def postgres(folder: Path, given: Path) -> Iterator[str]:
    """A PostgreSQL on its usual port, with the roles that the file makes, which Compose hands to the first start."""
    embedded = EmbeddedPostgres(folder, settings={"fsync": "off"})
    server = embedded.start()
    try:
        admin = server.superuser_dsn()
        with psycopg.connect(admin, autocommit=True) as connection:
            for statement in (given / "roles.sql").read_text().split(";\n"):
                if statement.strip():
                    connection.execute(statement)  # type: ignore[call-overload]
        told = conninfo_to_dict(admin)
        with relay(5432, f"{told['host']}/.s.PGSQL.{told['port']}"):
            yield psycopg.conninfo.make_conninfo(admin, dbname="memvault")
    finally:
        embedded.stop()


@contextmanager
def relay(port: int, path: str) -> Iterator[None]:
    """Lead a port to a socket: the embedded PostgreSQL listens on no network."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as inner:
                inner.connect(path)
                back = threading.Thread(target=_pump, args=(inner, self.request), daemon=True)
                back.start()
                _pump(self.request, inner)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        block_on_close = False

    with Server(("127.0.0.1", port), Connection) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            with closing(one):
                pass


@contextmanager
def qdrant(given: Path) -> Iterator[None]:
    """What stands for a Qdrant server, on its usual port, with the key of the file that the real one is given."""
    key = yaml.safe_load((given / "config.yaml").read_text())["service"]["api_key"]
    process = subprocess.Popen([sys.executable, "-m", "tests.qdrant.serving", "6333", key], cwd=REPOSITORY)
    try:
        yield
    finally:
        _end(process)


def roles(admin: str) -> dict[str, Any]:
    """What the roles may, and to whom the tables belong."""
    with psycopg.connect(admin) as connection:
        found = connection.execute(
            "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles "
            "WHERE rolname LIKE 'memvault%'"
        ).fetchall()
        owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {"may": {name: any(rights) for name, *rights in found}, "owners": sorted(owner for (owner,) in owners)}


def wait_sealed(folder: Path, worker: subprocess.Popen[bytes]) -> bool:
    """Whether the worker seals the trail and signs a checkpoint."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        assert worker.poll() is None, "the worker ended"
        if any(path.stat().st_size for path in folder.rglob("*") if path.is_file()):
            return True
        time.sleep(0.1)
    return False


def _end(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return process.wait(60)
