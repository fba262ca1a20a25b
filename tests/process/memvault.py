"""One installation as its users have it: a folder, the command `memvault`, and a process that serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from tests.canaries import check_text

REPOSITORY = Path(__file__).parents[2]
#: Seconds for a start, recovery after a kill and a busy machine included.
START_SECONDS = 90.0
STOP_SECONDS = 60.0
_ADDRESS = re.compile(r"serves on (http://\S+)")

Result = TypeVar("Result")


def command() -> list[str]:
    """Return the command: the installed one, else the same entry from this checkout."""
    script = Path(sys.executable).with_name("memvault")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from service.cli import main; main()"]


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class Memvault:
    """An installation in a place of its own, with an own home, temporary and working folder, all empty at first.

    `environ` is added to an environment that has nothing but what finds programs and this checkout.
    """

    #: The command that its process runs.
    runs: tuple[str, ...] = ("serve", "--port", "0")

    def __init__(self, model_folder: Path, **environ: str) -> None:
        # Not pytest's folder, which is 0700: as root, Postgres is another user and must be able to pass through.
        self.place = Path(tempfile.mkdtemp(prefix="mv", dir="/tmp"))
        self.place.chmod(0o711)
        self.data_dir = self.place / "data"
        self.home, self.temporary, self.cwd = (self._folder(name) for name in ("home", "tmp", "cwd"))
        self.data_dir.mkdir(mode=0o711)
        (self.data_dir / "model").symlink_to(model_folder)
        self.environ = environ
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._read_from = 0

    def _folder(self, name: str) -> Path:
        folder = self.place / name
        folder.mkdir()
        folder.chmod(0o711)
        return folder

    @property
    def stdout(self) -> str:
        """All that the serving processes of this installation printed."""
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        """All that the serving processes of this installation logged."""
        return self._text("stderr")

    @property
    def printed(self) -> str:
        """What the process that was started last printed."""
        return self.stdout[self._read_from :]

    def _text(self, name: str) -> str:
        file = self.place / name
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a process of this installation."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        own = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONPATH": str(REPOSITORY)}
        return kept | own | self.environ | more

    def spawn(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start to serve on a free port, without waiting for anything."""
        assert self.process is None
        self._read_from = len(self.stdout)
        with (self.place / "stdout").open("ab") as stdout, (self.place / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [*command(), *self.runs, "--data-dir", str(self.data_dir), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.cwd,
                env=self.environment(**environ),
                start_new_session=True,
            )
        return self.process

    def start(self, *arguments: str, **environ: str) -> Memvault:
        """Serve, and return once requests are answered."""
        self.spawn(*arguments, **environ)
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Return once the process says where it serves, `/readyz` answers 200 and searches are answered."""
        address = eventually(self._address, seconds=START_SECONDS)
        self.url = address.rstrip("/")
        eventually(self._is_ready, seconds=START_SECONDS)

    def _address(self) -> str | None:
        process = self.process
        assert process is not None
        assert process.poll() is None, f"it ended with {process.returncode}: {self.stderr[-2000:]}"
        return self.find_url()

    def find_url(self) -> str | None:
        """Return where the process that was started last says that it serves, if it does."""
        found = _ADDRESS.search(self.printed)
        return found[1].rstrip("/") if found else None

    def _is_ready(self) -> bool:
        answer = httpx.get(f"{self.url}/readyz", trust_env=False, timeout=10)
        return answer.status_code == 200 and answer.json()["parts"]["index"]["status"] == "ok"

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask the process to end, as Ctrl-C does, and return its exit code."""
        process = self._taken()
        process.send_signal(number)
        return process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End the serving process at once, as the kernel does. Postgres lives on: it is a process of its own."""
        process = self._taken()
        process.kill()
        process.wait(STOP_SECONDS)

    def _taken(self) -> subprocess.Popen[bytes]:
        process, self.process = self.process, None
        assert process is not None
        return process

    @cached_property
    def credentials(self) -> dict[str, str]:
        """What the first start left in `credentials.json`."""
        kept: dict[str, str] = json.loads((self.data_dir / "credentials.json").read_text(encoding="utf-8"))
        return kept

    def client(self, key: str | None = None, *, timeout: float = 30.0) -> httpx.Client:
        """Return an HTTP client with a key, by default the first admin key."""
        headers = {"Authorization": f"Token {key or self.credentials['api_key']}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    def run(self, *arguments: str, data_dir: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside whatever runs, and return what it printed and how it ended."""
        own = ["--data-dir", str(self.data_dir)] if data_dir else []
        ended = subprocess.run(
            [*command(), *arguments, *own],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.cwd,
            env=self.environment(**environ),
            timeout=180,
            check=False,
        )
        check_text(f"standard error of memvault {arguments[0]}", ended.stderr)
        return ended

    def json(self, *arguments: str, **environ: str) -> Any:
        """Run a command with `--json` and return its document, the one thing on its standard output."""
        ended = self.run(*arguments, "--json", **environ)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def superuser_dsn(self) -> str:
        """Return how to reach the embedded Postgres as its superuser, on the service's database."""
        kept = json.loads((self.data_dir / "postgres" / "superuser.json").read_text(encoding="utf-8"))
        recorded = self.data_dir / "postgres" / "socket_folder"
        sockets = recorded.read_text().strip() if recorded.exists() else self.data_dir / "postgres" / "run"
        return f"host={sockets} port=5432 user={kept['user']} password={kept['password']} dbname=memvault"

    def processes(self) -> list[psutil.Process]:
        """Return every living process that was told of this place or stands in it."""
        found = []
        for process in psutil.process_iter():
            try:
                told = any(str(self.place) in word for word in process.cmdline())
                inside = process.cwd().startswith(str(self.place))
                if (told or inside) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def _watched(self) -> None:
        """Look for canaries in what the serving processes wrote; the first key is printed on purpose, for its owner."""
        with suppress(FileNotFoundError):
            check_text("standard error of memvault serve", self.stderr)
            check_text("standard output of memvault serve", re.sub(r"mv_[\w-]+", "", self.stdout))

    def remove(self) -> None:
        """End what is still running, by process id, and remove the place."""
        if self.process is not None:
            self.kill()
        while left := self.processes():
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=5)
        self._watched()
        shutil.rmtree(self.place, ignore_errors=True)


class MemvaultWorker(Memvault):
    """A process that runs queued work, with a folder of its own."""

    runs = ("worker",)

    def wait_ready(self) -> None:
        """Return once it waits for work."""
        process = self.process
        assert process is not None

        def waits() -> bool:
            assert process.poll() is None, f"it ended with {process.returncode}: {self.stderr[-2000:]}"
            return "waiting for work" in self.printed

        eventually(waits, seconds=START_SECONDS)


def eventually(ask: Callable[[], Result | None], *, seconds: float = 15.0, pause: float = 0.05) -> Result:
    """Return the first true answer; AssertionError when none comes in time. A refused connection is no answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = ask()
        except httpx.TransportError:
            answer = None
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not true after {seconds} s: {ask}"
        time.sleep(pause)


def add(client: httpx.Client, *texts: str, user: str = "alice", **more: Any) -> list[str]:
    """Add verbatim messages and return the ids of their memories."""
    messages = [{"role": "user", "content": text} for text in texts]
    answer = client.post("/v3/memories/add/", json={"messages": messages, "user_id": user, "infer": False, **more})
    assert answer.status_code == 200, answer.text
    return [result["id"] for result in answer.json()["results"]]


def search(client: httpx.Client, query: str, *, user: str = "alice", **more: Any) -> list[Mapping[str, Any]]:
    """Search a user's memories and return the hits, the best first."""
    body = {"query": query, "filters": {"user_id": user}, "threshold": 0.0, **more}
    answer = client.post("/v3/memories/search/", json=body)
    assert answer.status_code == 200, answer.text
    hits: Sequence[Mapping[str, Any]] = answer.json()["results"]
    return list(hits)


def listed(client: httpx.Client, *, user: str = "alice") -> dict[str, str]:
    """Return all memories of a user by id."""
    found: dict[str, str] = {}
    page = 1
    while True:
        body = {"filters": {"user_id": user}}
        answer = client.post("/v3/memories/", params={"page": page, "page_size": 100}, json=body)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        found |= {item["id"]: item["memory"] for item in document["results"]}
        if document["next"] is None:
            assert document["count"] == len(found)
            return found
        page += 1
