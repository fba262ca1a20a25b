"""The two set-ups that storms blow over: everything in one process, and services and workers on common stores."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from service import wiring
from service.auth.keys import Grant
from service.migrations.runner import upgrade
from service.policy.table import ROLES
from service.settings import Settings, load_settings
from service.storage.embedded import EmbeddedPostgres, ensure_database
from service.storage.embedded.postmaster import find_postmaster
from tests.conftest import Postgres
from tests.faults.keeping import Count, Kept
from tests.faults.storm import Fault
from tests.llm.scripted import ScriptedLLM
from tests.process.cluster import BOOTSTRAP, Cluster
from tests.process.memvault import Memvault, eventually

#: Sooner than in production, so that what was killed is missed while the storm still blows.
_STALLED: Final = 5
_DISK: Final = 400
#: Seconds that something is away at most, should the calls stand still meanwhile.
_AWAY_SECONDS: Final = 5.0
_LLM: Final = {"retry_wait": 0.1, "attempts": 20, "timeout": 10}


class Setup:
    """What both have: processes that are kept, a language model, and faults by name."""

    def __init__(self, llm: ScriptedLLM, count: Count) -> None:
        self.llm = llm
        self.count = count
        self.services: list[Kept] = []
        self.workers: list[Kept] = []
        self.keys: list[str] = []

    @property
    def kept(self) -> list[Kept]:
        """All processes."""
        return [*self.services, *self.workers]

    def kinds(self) -> Mapping[str, tuple[int, int, Callable[[Fault], None]]]:
        """Return the faults: how often in a short storm, by which weight in a long one, and what each does."""
        raise NotImplementedError

    def command(self, *arguments: str) -> Any:
        """Run a command beside the first service."""
        raise NotImplementedError

    def superuser_dsn(self) -> str:
        """Return how to reach Postgres as its superuser."""
        raise NotImplementedError

    def reach(self, stack: ExitStack) -> tuple[Settings, wiring.Connections]:
        """Return how the test itself reaches the record and the keyring."""
        raise NotImplementedError

    def make_keys(self) -> None:
        """Make a second tenant, and an admin key of each."""
        with ExitStack() as stack:
            # In the test's own process, beside the services: a command takes seconds to start.
            installation = wiring.open_installation(*self.reach(stack), stack)
            other = installation.tenants.create("other").id
            self.keys.append(installation.keys.mint_for_installation(other, Grant(ROLES["admin"])).secret)

    def kill_service(self, fault: Fault) -> None:
        """Kill a service, whatever it does."""
        self.services[fault.target % len(self.services)].kill()

    def kill_starting(self, fault: Fault) -> None:
        """Kill a service, and once more while it starts."""
        chosen = self.services[fault.target % len(self.services)]
        chosen.kill()
        before = len(chosen.exits)
        eventually(lambda: len(chosen.exits) > before or chosen.memvault.process is not None, seconds=30)
        time.sleep(fault.delay * 3)
        chosen.kill()

    def cut(self, fault: Fault) -> None:
        """Cut every connection to Postgres."""
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'memvault_app'"
        with suppress(psycopg.OperationalError), psycopg.connect(self.superuser_dsn(), connect_timeout=5) as superuser:
            superuser.execute(cut)

    def llm_slow(self, fault: Fault) -> None:
        """Let the language model answer nothing for a while."""
        self.llm.hold()
        self.away(fault)
        self.llm.release()

    def llm_dead(self, fault: Fault) -> None:
        """Let the language model fail."""
        for status in (500, 503, 429):
            self.llm.status(status, retry_after=0.1)
        self.away(fault)

    def away(self, fault: Fault) -> None:
        """Wait while what was taken away is away."""
        self.count.wait_for(self.count.value + fault.lasts, seconds=_AWAY_SECONDS)

    def calm(self) -> None:
        """End whatever still lasts."""
        self.llm.release()


class Embedded(Setup):
    """One process with the embedded Postgres and the embedded index, on a disk of its own where root may make one."""

    def __init__(self, llm: ScriptedLLM, count: Count, model: Path, stack: ExitStack) -> None:
        super().__init__(llm, count)
        environ = {f"MEMVAULT_LLM__{name.upper()}": str(value) for name, value in _LLM.items()}
        self.memvault = Memvault(
            model,
            MEMVAULT_LLM__PROVIDER="openai",
            MEMVAULT_LLM__MODEL="scripted",
            MEMVAULT_LLM__API_KEY="sk-scripted",
            MEMVAULT_LLM__BASE_URL=llm.url,
            MEMVAULT_QUEUE__STALLED_SECONDS=str(_STALLED),
            **environ,
        )
        stack.callback(self.memvault.remove)
        self.disk = stack.enter_context(small_disk(self.memvault.data_dir, model))
        self.services = [Kept(self.memvault)]
        self._postgres = self.memvault.data_dir / "postgres"

    def kinds(self) -> Mapping[str, tuple[int, int, Callable[[Fault], None]]]:
        """See above."""
        return {
            "kill of the service": (4, 30, self.kill_service),
            "kill while it starts": (1, 8, self.kill_starting),
            "end of Postgres": (1, 6, self.end_postgres),
            "connections cut": (1, 6, self.cut),
            "LLM slow": (1, 4, self.llm_slow),
            "LLM dead": (1, 4, self.llm_dead),
            **({"disk full": (1, 4, self.disk_full)} if self.disk else {}),
        }

    def command(self, *arguments: str) -> Any:
        """See above."""
        return self.memvault.json(*arguments)

    def superuser_dsn(self) -> str:
        """See above."""
        return self.memvault.superuser_dsn()

    def make_keys(self) -> None:
        """See above."""
        self.keys.append(self.memvault.credentials["api_key"])
        super().make_keys()

    def reach(self, stack: ExitStack) -> tuple[Settings, wiring.Connections]:
        """See above."""
        settings = load_settings(environ={}, flags={"data_dir": self.memvault.data_dir})
        return settings, wiring.reach_record(settings, stack)

    def end_postgres(self, fault: Fault) -> None:
        """End Postgres at once; one time in two with its postmaster alone, which leaves the others to themselves."""
        postmaster = find_postmaster(self._postgres / "data")
        if postmaster is not None:
            postmaster.process.send_signal(signal.SIGQUIT if fault.target else signal.SIGKILL)

    def disk_full(self, fault: Fault) -> None:
        """Fill the disk to its last byte for a while."""
        with full(self.memvault.data_dir):
            self.away(fault)


class Server(Setup):
    """Two services and two workers on one Postgres, one Qdrant server and one keyring."""

    def __init__(self, llm: ScriptedLLM, count: Count, model: Path, folder: Path, stack: ExitStack) -> None:
        super().__init__(llm, count)
        place = Path(tempfile.mkdtemp(prefix="memvault-faults-"))
        place.chmod(0o711)
        self._postgres = EmbeddedPostgres(place / "postgres", settings={"max_connections": "150"})
        server = self._postgres.start()
        stack.callback(subprocess.run, ["rm", "-rf", str(place)], check=False)
        stack.callback(self._postgres.stop)
        credentials = ensure_database(server, folder=place / "postgres")
        upgrade(credentials.owner_dsn, app_role="memvault_app")
        self._dsn = server.superuser_dsn("memvault")
        urls = Postgres(self._dsn, credentials.owner_dsn, credentials.app_dsn).urls
        more: dict[str, dict[str, Any]] = {
            "queue": {"stalled_seconds": _STALLED},
            "database": {"pool_size": 10},
            "llm": dict(_LLM),
        }
        self.cluster = Cluster(folder, urls, llm, model, stack, more)
        arguments = ("--config", str(self.cluster.config))
        self.services = [Kept(process, *arguments) for process in self.cluster.services]
        self.workers = [Kept(process, *arguments) for process in self.cluster.workers]
        self._connections = wiring.Connections(credentials.app_dsn, credentials.owner_dsn)

    def kinds(self) -> Mapping[str, tuple[int, int, Callable[[Fault], None]]]:
        """See above."""
        return {
            "kill of a service": (3, 30, self.kill_service),
            "kill of a worker": (2, 24, self.kill_worker),
            "kill while it starts": (1, 8, self.kill_starting),
            "kill of all": (0, 3, self.kill_all),
            "end of Postgres": (1, 6, self.end_postgres),
            "connections cut": (1, 6, self.cut),
            "Qdrant away": (1, 8, self.qdrant_away),
            "LLM slow": (1, 4, self.llm_slow),
            "LLM dead": (1, 4, self.llm_dead),
        }

    def command(self, *arguments: str) -> Any:
        """See above."""
        return self.cluster.json(*arguments)

    def superuser_dsn(self) -> str:
        """See above."""
        return self._dsn

    def make_keys(self) -> None:
        """See above."""
        self.keys.append(BOOTSTRAP)
        super().make_keys()

    def reach(self, stack: ExitStack) -> tuple[Settings, wiring.Connections]:
        """See above."""
        folder = self.cluster.services[0].data_dir
        return load_settings(config=self.cluster.config, environ={}, flags={"data_dir": folder}), self._connections

    def kill_worker(self, fault: Fault) -> None:
        """Kill a worker, whatever it does."""
        self.workers[fault.target % len(self.workers)].kill()

    def kill_all(self, fault: Fault) -> None:
        """Kill all at once."""
        for kept in self.kept:
            kept.kill()

    def end_postgres(self, fault: Fault) -> None:
        """Restart Postgres, as after a crash."""
        server = self._postgres.start()
        os.kill(server.pid, signal.SIGQUIT)
        eventually(lambda: not self._postgres.lives(), seconds=30)
        self.away(fault)
        self._postgres.start()

    def qdrant_away(self, fault: Fault) -> None:
        """Let Qdrant answer nothing for a while."""
        self.cluster.qdrant("stop")
        self.away(fault)
        self.cluster.qdrant("go")

    def calm(self) -> None:
        """See above."""
        super().calm()
        self.cluster.qdrant("go")
        self._postgres.start()


@contextmanager
def small_disk(folder: Path, model: Path) -> Iterator[bool]:
    """Mount a small file system on a new data folder, where root may; tell whether it is there."""
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_DISK}m,mode=711", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        ).returncode
    )
    if mounted:
        (folder / "model").symlink_to(model)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the file system of a folder to its last byte until the block ends."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while file.write(b"\0" * size):
                    pass
    try:
        yield
    finally:
        ballast.unlink()


def needs_disk(there: bool) -> None:
    """Skip a test that needs a disk of its own where there is none."""
    if not there:
        pytest.skip("a small disk can be mounted by root only")
