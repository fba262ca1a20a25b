"""What the benchmark says that a service takes is right also while processes of it end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from bench import serving
from bench.serving import Served, cpu_seconds

pytestmark = pytest.mark.unit

WAITING = """
import time
from bench.serving import scratch_folder
with scratch_folder() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""

DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]).pid, flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_benchmark_that_is_ended_removes_its_folder(ending: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.send_signal(ending)
        process.wait(20)
    assert not folder.exists()


def test_processor_time_of_what_ended_meanwhile_is_counted(tmp_path: Path) -> None:
    before = cpu_seconds(os.getpid(), tmp_path)
    subprocess.run([sys.executable, "-c", "sum(i * i for i in range(5_000_000))"], check=True)
    assert cpu_seconds(os.getpid(), tmp_path) - before > 0.1


@pytest.fixture
def gone() -> psutil.Process:
    """A process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = psutil.Process(process.pid)
    process.communicate(b"\n")
    return known


def test_a_worker_that_ended_does_not_end_the_measurement(
    gone: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.serving.processes_below", lambda *_: [gone])
    assert Served("", "", os.getpid(), tmp_path, 1.0).memory_bytes()["service"] > 0


def test_a_service_that_does_not_stop_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_STOP_SECONDS", 0.2)
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        try:
            serving._stop(process, tmp_path)
            assert psutil.wait_procs([child], timeout=10)[0] == [child]
        finally:
            process.kill()
            with suppress(psutil.NoSuchProcess):
                child.kill()
