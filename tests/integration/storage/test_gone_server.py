"""A Postgres that says nothing more: each connection gives it up soon, and nobody who asks how it stands waits long."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from service import wiring
from service.api.opening import Opening
from service.errors import ConfigurationError
from service.settings import load_settings
from tests.conftest import Postgres, open_on
from tests.process.memvault import eventually

pytestmark = pytest.mark.integration

GIVEN_UP = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3", "tcp_user_timeout": "20000"}
URL = "postgresql://memvault_app:correct-horse-battery@db.example.com/memvault"


class Way:
    """A way to a server over TCP. While `open` is not set, nothing comes through it, and nobody is told."""

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = [self._listener]
        self.port = self._listener.getsockname()[1]
        user, password, name = (quote(str(self._target[key]), safe="") for key in ("user", "password", "dbname"))
        self.url = f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{name}"
        self.open = threading.Event()
        self.open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End, and cut what goes through."""
        self.open.set()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], self._connected()
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _connected(self) -> socket.socket:
        host, port = str(self._target["host"]), self._target.get("port", 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{host}/.s.PGSQL.{port}")
        return far

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while said := one.recv(65536):
                self.open.wait()
                other.sendall(said)
            other.shutdown(socket.SHUT_WR)


@contextmanager
def way_to(dsn: str) -> Iterator[Way]:
    """Lend a way to a server."""
    way = Way(dsn)
    try:
        yield way
    finally:
        way.close()


def options(port: int) -> list[dict[str, str]]:
    """What the kernel was told of each connection of this process to a port."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(number))) as one:
            if one.family == socket.AF_INET and one.getpeername()[1] == port:
                named = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
                told = [str(one.getsockopt(socket.IPPROTO_TCP, option)) for option in named]
                found.append(dict(zip(GIVEN_UP, told, strict=True)))
    return found


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such time-out")
def test_the_kernel_gives_up_a_server_that_is_gone_on_every_connection(
    database: Postgres, data_dir: Path, keyring_settings: dict[str, str]
) -> None:
    with way_to(database.app) as record, way_to(keyring_settings["url"]) as keys, ExitStack() as stack:
        keyring = keyring_settings | {"url": keys.url}
        services = open_on(replace(database, app=record.url), data_dir, stack, worker=True, keyring=keyring)
        services.installation.keyring.ping()
        with services.installation.database.tenant_blind() as connection:
            services.installation.queue.defer(connection, "none", {})
        # The pool's, and the worker's, which listens on one and looks with another.
        eventually(lambda: len(options(record.port)) >= 3)
        assert [one for one in options(record.port) + options(keys.port) if one != GIVEN_UP] == []
        assert options(keys.port)


def test_every_url_of_the_settings_is_bounded_but_what_it_says_itself_stays(data_dir: Path) -> None:
    named = {"url": URL, "owner_url": URL, "maintenance_url": f"{URL}?tcp_user_timeout=1000", "backup_url": URL}
    settings = load_settings(environ={}, flags={"data_dir": data_dir, "database": named})
    with ExitStack() as stack:
        reached = wiring.reach_record(settings, stack)
    dsns = (reached.app_dsn, reached.owner_dsn, reached.maintenance_dsn, reached.backup_dsn)
    told = [{key: value for key, value in conninfo_to_dict(dsn or "").items() if key in GIVEN_UP} for dsn in dsns]
    assert told == [GIVEN_UP, GIVEN_UP, GIVEN_UP | {"tcp_user_timeout": "1000"}, GIVEN_UP]


def test_a_url_that_is_none_is_named(data_dir: Path) -> None:
    named = {"url": URL, "owner_url": f"{URL}?no_such_option=1"}
    settings = load_settings(environ={}, flags={"data_dir": data_dir, "database": named})
    with ExitStack() as stack, pytest.raises(ConfigurationError, match=r"database\.owner_url: .* this URL"):
        wiring.reach_record(settings, stack)


def test_a_database_that_hangs_is_told_to_every_probe(database: Postgres, data_dir: Path) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool, way_to(database.app) as way:
        opening = Opening(open_on(replace(database, app=way.url), data_dir, stack))

        def told() -> list[str]:
            probes = [pool.submit(opening.parts) for _ in range(4)]
            return [part.state for probe in probes for part in probe.result(30) if part.name == "record"]

        assert told() == ["ok"] * 4
        way.open.clear()
        eventually(lambda: told() == ["failed"] * 4)
        way.open.set()
        eventually(lambda: told() == ["ok"] * 4)
        stack.close()
