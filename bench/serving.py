"""Starts a Memvault of the benchmark's own, in a process of its own that is stopped by its pid, or in this one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from service import clock, wiring
from service.auth.keys import Grant
from service.migrations.runner import upgrade
from service.policy.table import ROLES
from service.scope import Caller
from service.settings import load_settings
from service.settings.languages import Language

_ROOT: Final = Path(__file__).resolve().parents[1]
_START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 60.0
#: Would be refused at start, or would send the benchmark somewhere else.
_UNWANTED: Final = ("OPENROUTER_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE")


@dataclass(frozen=True, slots=True)
class Served:
    """A running service: its address, its first admin key, its process, and the seconds until it was ready."""

    url: str
    api_key: str
    pid: int
    data_dir: Path
    seconds: float

    def memory_bytes(self) -> dict[str, int]:
        """Return resident bytes of the service with its index, and of the Postgres beside it (shared pages once)."""
        service = psutil.Process(self.pid)
        bytes_of = {"service": int(service.memory_info().rss), "postgres": 0}
        for one in processes_below(service, self.data_dir):
            with suppress(psutil.NoSuchProcess):  # a worker of Postgres may end meanwhile
                bytes_of["postgres" if "postgres" in one.name() else "service"] += _own_bytes(one)
        return bytes_of


class NotServing(RuntimeError):
    """The service did not start; the message ends with the last lines that it wrote."""


def cpu_seconds(pid: int, data_dir: Path) -> float:
    """Return the processor time that a process, its children and the Postgres of its data folder have had."""
    root = psutil.Process(pid)
    had = 0.0
    for one in (root, *processes_below(root, data_dir)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            # With what ended and was waited for: a connection that is closed would take its time along.
            had += times.user + times.system
            had += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return had


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a temporary folder that the embedded Postgres, another user under root, can pass through.

    SIGTERM and a terminal that is closed end the program as Ctrl-C does, so that what was started is stopped and what
    was written is removed.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="memvault-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


def own_services(data_dir: Path, stack: ExitStack) -> wiring.Services:
    """Open a new embedded installation in this process, without HTTP, until the stack closes."""
    settings = load_settings(environ={}, flags={"data_dir": data_dir})
    connections = wiring.reach_record(settings, stack, make=True)
    if connections.owner_dsn is not None:
        upgrade(connections.owner_dsn, app_role=settings.database.app_role)
    return wiring.open_services(wiring.open_installation(settings, connections, stack), stack)


def new_caller(services: wiring.Services, tenant: str, language: Language | None = None) -> Caller:
    """Make a tenant and return a caller who may do everything in it."""
    made = services.installation.tenants.create(tenant, language=language)
    minted = services.installation.keys.mint_for_installation(made.id, Grant(ROLES["admin"]))
    principal = services.installation.keys.find_principal(minted.secret)
    if principal is None:
        raise RuntimeError("a key that was made just now is not known")
    return Caller(principal, request_id=str(clock.new_id()), client="bench")


@contextmanager
def serving(data_dir: Path) -> Iterator[Served]:
    """Serve a data folder on a free port of this machine until the context ends.

    Raises:
        NotServing: when it ends, or is not ready after three minutes.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log = data_dir.with_name(f"{data_dir.name}.log")
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_command(), "serve", "--port", str(port), "--data-dir", str(data_dir)],
            cwd=_ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        seconds = _wait(process, url, log, began)
        credentials: dict[str, Any] = json.loads((data_dir / "credentials.json").read_text(encoding="utf-8"))
        yield Served(url, str(credentials["api_key"]), process.pid, data_dir, seconds)
    finally:
        _stop(process, data_dir)


def _command() -> list[str]:
    """The console script beside this Python, else the same entry point by name."""
    script = Path(sys.executable).with_name("memvault")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from service.cli import main; main()"]


def _environment() -> dict[str, str]:
    """This environment without settings: what is measured are the defaults."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMVAULT_")}
    return {name: value for name, value in kept.items() if name not in _UNWANTED} | {"MEM0_TELEMETRY": "false"}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, began: float) -> float:
    with httpx.Client(trust_env=False, timeout=5) as client:
        while (waited := time.perf_counter() - began) < _START_SECONDS:
            if process.poll() is not None:
                break
            try:
                if client.get(f"{url}/readyz").status_code == 200:
                    return time.perf_counter() - began
            except httpx.TransportError:
                pass
            time.sleep(0.02)
    last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
    raise NotServing(f"the service was not ready after {waited:.0f} s; the last lines of its log:\n{last}")


def _stop(process: subprocess.Popen[bytes], data_dir: Path) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # What it started would outlive it.
        for one in (service := psutil.Process(process.pid), *processes_below(service, data_dir)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def processes_below(service: psutil.Process, data_dir: Path) -> list[psutil.Process]:
    """Return what the service started, and the embedded Postgres, which may have left its family."""
    found = {one.pid: one for one in service.children(recursive=True)}
    for file in (data_dir / "postgres").rglob("postmaster.pid"):
        postmaster = psutil.Process(int(file.read_text(encoding="ascii").split()[0]))
        found |= {one.pid: one for one in (postmaster, *postmaster.children(recursive=True))}
    return list(found.values())


def _own_bytes(process: psutil.Process) -> int:
    """Proportional bytes where the system tells them, else resident ones."""
    try:
        return int(getattr(process.memory_full_info(), "pss", process.memory_info().rss))
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return 0
