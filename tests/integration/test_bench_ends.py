"""A benchmark that is refused, interrupted or ended early says so, keeps what it found, and leaves nothing behind."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from bench.__main__ import main, show
from bench.contenders import Floor
from bench.plot import draw
from bench.remote import Rest
from bench.running import measure
from bench.serving import Served
from bench.speed import Case, Plan, Race, Results, machine, timed
from bench.stock import USER
from bench.timing import Refused
from service.auth.grants import Grant
from service.main import create_app
from service.scope import Permission
from tests.clients.serving import serving
from tests.conftest import MakeServices, principal_of
from tests.process.memvault import eventually

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]

INTERRUPTED = """
import itertools, signal, time
from bench.timing import sample
signal.signal(signal.SIGINT, signal.default_int_handler)
calls = []
def call(number):
    calls.append(number)
    print(flush=True)
    time.sleep(0.3)
try:
    sample(call, itertools.count(), callers=3, seconds=60)
except KeyboardInterrupt:
    made = len(calls)
    time.sleep(0.5)
    print(len(calls) - made)
"""


class Named:
    """A contender that notes whose calls were made when, and fails those of some tenants."""

    def __init__(self, name: str, *, tenants: int = 1, works: bool = True) -> None:
        self.name = name
        self._tenants = tenants
        self._works = works
        self.tenants_called: list[int] = []

    def search(self, number: int) -> None:
        """Note it, and take a while."""
        self.tenants_called.append(number % self._tenants)
        time.sleep(0.002)
        if not self._works:
            raise Refused("status 429")

    add = search


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sizes", "50"], "a tenant needs 100 memories"),
        (["--sizes", "1000", "--tenants", "100"], "a tenant needs 100 memories"),
        (["--sizes", "many"], "--sizes: whole numbers over 0"),
        (["--url", "memory.example.com"], "--url: the address of a service"),
        (["--url", "http://127.0.0.1:9"], "MEM0_API_KEY"),
        (["--url", "http://127.0.0.1:9", "--tenants", "3"], "--tenants: not with --url"),
        (["--url", "http://127.0.0.1:9", "--sizes", "5"], "--sizes: with --url"),
        (["--save", "/dev/null/figures"], "--save: Not a directory"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_started(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.__main__.scratch_folder", lambda: pytest.fail("started"))
    monkeypatch.delenv("MEM0_API_KEY", raising=False)
    program = typer.Typer()
    program.command()(main)
    done = CliRunner().invoke(program, arguments, env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert done.exit_code == 2, done.output
    assert said in done.output


def test_a_service_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--url", "http://127.0.0.1:9"],
        cwd=ROOT,
        env=os.environ | {"MEM0_API_KEY": "mv_made_up", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("calls", [1, 7])
def test_interrupted_calls_end_and_no_other_is_made(calls: int) -> None:
    """While each thread makes its first call, for which all wait, and later."""
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for _ in range(calls):
                process.stdout.readline()
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert said.split() == ["0"]


@pytest.mark.parametrize(("ending", "at"), [(signal.SIGINT, "timing "), (signal.SIGTERM, "starting, second")])
def test_an_interrupted_run_leaves_no_process_and_no_folder(ending: signal.Signals, at: str, tmp_path: Path) -> None:
    """A key stroke meets all processes of the terminal at once, `kill` the one that it names."""
    options = ["--sizes", "200", "--tenants", "1", "--callers", "1", "--no-stock", "--rounds", "1", "--seconds", "60"]
    tmp_path.chmod(0o711)
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *options],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            assert process.stderr is not None
            next(line for line in process.stderr if line.startswith(at))
            time.sleep(1)
            below = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, ending) if ending is signal.SIGTERM else os.killpg(process.pid, ending)
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "interrupted"
    gone, alive = psutil.wait_procs(below, timeout=10)
    assert not alive
    assert gone
    assert list(tmp_path.iterdir()) == []


def test_what_measures_the_trail_leaves_no_process_and_no_folder_either(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    with subprocess.Popen(
        [sys.executable, "-m", "bench.audit_cost"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            eventually(lambda: list(tmp_path.glob("*/data/**/postmaster.pid")), seconds=60)
            below = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(60)
        finally:
            process.kill()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive
    assert list(tmp_path.iterdir()) == []


def test_figures_are_kept_after_each_case_and_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of an hour that ends before its end has lost only what it was at."""
    kept: list[dict[str, Any]] = []

    def measured(self: Race, *_: object) -> dict[str, Any]:
        if self._results.footprints:
            raise RuntimeError("the machine is full")
        self._time([Named(Floor.name), Named(Rest.name)], 100, 1, {})
        return {}

    class Quiet:
        """Takes what an engine is given."""

        def __init__(self, *_: object) -> None:
            pass

        def new_tenants(self, _: int) -> list[str]:
            """Make none."""
            return []

        def fill(self, _: range) -> float:
            """Do nothing."""
            return 1.0

        maintain = new_tenants

    monkeypatch.setattr("bench.speed.serving", lambda home: _Started(home))
    monkeypatch.setattr("bench.speed.InProcess", Quiet)
    monkeypatch.setattr(Quiet, "maintain", lambda _: None)
    monkeypatch.setattr(Race, "_measure", measured)
    plan = Plan(sizes=(100, 200), tenants=(1,), callers=(1, 2), rounds=1, seconds=0.01)
    race = Race(plan, tmp_path, lambda _: None, lambda results: kept.append(results.document()))
    with pytest.raises(RuntimeError, match="full"):
        race.run()
    assert [len(one["cells"]) for one in kept] == [2, 4, 6, 8, 8]
    assert [len(one["footprints"]) for one in kept] == [0, 0, 0, 0, 1]
    assert not any(one["complete"] for one in kept)


class _Started:
    def __init__(self, home: Path) -> None:
        self._served = Served("http://127.0.0.1:9", "key", os.getpid(), home, 1.0)

    def __enter__(self) -> Served:
        return self._served

    def __exit__(self, *_: object) -> None:
        pass


def test_first_calls_of_a_tenant_are_not_timed() -> None:
    one = Named(Rest.name, tenants=50)
    (_, cell) = timed(
        [Named(Floor.name), one], Case(5000, 50, "search", 1), Plan(rounds=1, seconds=0.05), itertools.count()
    )
    assert cell.calls < len(one.tenants_called) - 50
    assert set(one.tenants_called[:50]) == set(range(50))


def test_a_contender_that_answers_nothing_is_no_number_and_says_why(tmp_path: Path) -> None:
    contenders = [Named(Floor.name), Named(Rest.name, works=False)]
    cells = timed(contenders, Case(100, 1, "search", 1), Plan(rounds=2, seconds=0.05), itertools.count())
    results = Results({}, machine(), cells=cells)
    written = json.loads(json.dumps(results.document(), allow_nan=False))
    (_, failed) = written["cells"]
    assert failed["p50_ms"] is failed["ratio"] is None
    assert list(failed["errors"]) == ["status 429"]
    console = Console(file=io.StringIO(), width=120)
    show(results, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "ended before all was measured" in printed
    assert f"0 to {cells[0].calls} calls" in printed
    assert "(status 429)" in printed
    draw(written, tmp_path / "speed.svg")
    assert (tmp_path / "speed.svg").stat().st_size > 0


def test_a_key_that_may_not_delete_is_refused_before_anything_is_added(
    make_services: MakeServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services()
    tenant = services.installation.tenants.create("acme").id
    _, key = principal_of(services, tenant)
    grant = Grant(frozenset({Permission.MEMORY_READ, Permission.MEMORY_WRITE}))
    other = services.installation.keys.mint_for_installation(tenant, grant).secret
    monkeypatch.setattr("bench.running.timed", lambda *_: pytest.fail("timed"))
    with serving(create_app(services)) as url:
        plan = Plan(sizes=(30,), callers=(1,), rounds=1, seconds=0.1)
        with pytest.raises(httpx.HTTPStatusError, match="403"):
            measure(url, other, plan, tmp_path, lambda _: None, lambda _: None)
        with httpx.Client(base_url=url, headers={"Authorization": f"Token {key}"}, timeout=60) as client:
            listed = client.post("/v3/memories/", json={"filters": {"user_id": USER}})
        assert listed.json()["count"] == 0
