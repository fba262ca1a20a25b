"""Times search and add of all contenders side by side, and takes the service's start-up times and footprint."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from bench.contenders import Contender, Floor, InProcess, Rest
from bench.serving import serving
from bench.stock import Stock
from bench.timing import Sample, percentile, sample
from service.embeddings.minilm import MiniLM

Tell = Callable[[str], None]
OPERATIONS: Final = ("search", "add")
#: Numbers of the texts that are added while it is timed: beyond those that were loaded.
_NEW_TEXTS: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: numbers of memories, numbers of callers, runs of each, and seconds of one run.

    Once `budget` seconds are over, what is left is run once only: a busy machine makes the figures coarse, not late.
    """

    sizes: tuple[int, ...] = (1_000, 10_000)
    callers: tuple[int, ...] = (1, 16)
    rounds: int = 3
    seconds: float = 1.0
    stock: bool = True
    budget: float = 210.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One contender's figures for one operation, in milliseconds and calls per second.

    `p50_ms` is the median of the runs' medians and `spread_ms` the least and the greatest of them; the other
    percentiles are over all calls of all runs. `ratio` compares with the floor of the same run, the median over runs.
    """

    memories: int
    operation: str
    callers: int
    contender: str
    p50_ms: float
    spread_ms: tuple[float, float]
    p95_ms: float
    p99_ms: float
    per_second: float
    ratio: float
    ratio_spread: tuple[float, float]
    rounds: int
    calls: int
    errors: dict[str, int]


@dataclass
class Results:
    """Everything that a run found. Bytes are bytes, times seconds unless the name says otherwise."""

    plan: dict[str, Any]
    machine: dict[str, float]
    cells: list[Cell] = field(default_factory=list)
    starts: dict[str, float] = field(default_factory=dict)
    footprints: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the results as what JSON can say."""
        return asdict(self)


def machine() -> dict[str, float]:
    """Return the cores that this process may use and the memory in gibibytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return {"cores": cores, "memory_gib": round(psutil.virtual_memory().total / 2**30, 1)}


class Race:
    """One whole measurement: the service is started, loaded step by step, and timed beside the others at each size.

    `folder` takes everything that is written; `tell` hears what is being done.
    """

    def __init__(self, plan: Plan, folder: Path, tell: Tell) -> None:
        self._plan = plan
        self._folder = folder
        self._home = folder / "data"
        self._tell = tell
        self._results = Results(asdict(plan), machine())
        self._numbers = itertools.count(_NEW_TEXTS)
        self._until = time.perf_counter() + plan.budget
        self._api_key = ""

    def run(self) -> Results:
        """Measure everything that the plan names."""
        for name in ("first", "second"):
            self._tell(f"starting, {name} time")
            with serving(self._home) as served:
                self._results.starts[name] = served.seconds
                self._api_key = served.api_key
        empty = disk_bytes(self._home)
        loaded = 0
        for size in sorted(self._plan.sizes):
            self._tell(f"loading {size} memories")
            with ExitStack() as stack:
                engine = InProcess(self._home, self._api_key, stack)
                began = time.perf_counter()
                engine.fill(range(loaded, size))
                rate = (size - loaded) / (time.perf_counter() - began)
                engine.maintain()
            loaded = size
            footprint = _at_rest(self._home, empty, size) | {"load_per_second": rate}
            self._results.footprints.append(footprint | self._measure(size))
        return self._results

    def _measure(self, size: int) -> dict[str, Any]:
        """Time every contender with this many memories; return what they take in memory.

        REST serves a copy, since only one process can hold an index.
        """
        copy, stock_folder = self._folder / f"data-{size}", self._folder / f"stock-{size}"
        subprocess.run(["cp", "-a", str(self._home), str(copy)], check=True)
        with ExitStack() as stack:
            self._tell(f"starting with {size} memories")
            served = stack.enter_context(serving(copy))
            self._results.starts[f"with {size} memories"] = served.seconds
            engine = InProcess(self._home, self._api_key, stack)
            entries = engine.entries()
            embedder = MiniLM(self._home / "model")
            floor = Floor(self._folder / f"floor-{size}", embedder, engine.scope)
            stack.callback(floor.close)
            floor.fill(entries)
            floor.maintain()
            contenders: list[Contender] = [floor, engine, Rest(served.url, self._api_key)]
            if self._plan.stock:
                self._tell(f"loading {size} memories into Mem0's own store")
                stock = Stock(stock_folder, embedder)
                stack.callback(stock.close)
                stock.fill(entries)
                contenders.append(stock)
            for operation, callers in itertools.product(OPERATIONS, self._plan.callers):
                self._tell(f"timing {operation} with {size} memories and {callers} callers")
                samples = self._samples(contenders, operation, callers)
                floor_medians = [percentile(one.latencies, 0.5) for one in samples[Floor.name]]
                self._results.cells += [
                    _cell(size, operation, callers, name, own, floor_medians) for name, own in samples.items()
                ]
            taken: dict[str, Any] = {"memory_bytes": served.memory_bytes()}
        shutil.rmtree(copy, ignore_errors=True)
        if self._plan.stock:
            taken["mem0ai"] = _stock_alone(stock_folder, self._home / "model", size)
        return taken

    def _samples(self, contenders: Sequence[Contender], operation: str, callers: int) -> dict[str, list[Sample]]:
        """Time the contenders in turn, round after round, so that a busy moment of the machine meets all of them."""
        rounds: dict[str, list[Sample]] = {one.name: [] for one in contenders}
        for number in range(self._plan.rounds):
            if number and time.perf_counter() > self._until:
                break
            for one in contenders:
                call = one.search if operation == "search" else one.add
                taken = sample(call, self._numbers, callers=callers, seconds=self._plan.seconds)
                rounds[one.name].append(taken)
        return rounds


def _cell(
    size: int, operation: str, callers: int, name: str, samples: Sequence[Sample], least: Sequence[float]
) -> Cell:
    medians = [percentile(one.latencies, 0.5) for one in samples]
    ratios = [own / floor for own, floor in zip(medians, least, strict=True)]
    everything = [latency for one in samples for latency in one.latencies]
    errors = {kind: sum(one.errors[kind] for one in samples) for one in samples for kind in one.errors}
    return Cell(
        memories=size,
        operation=operation,
        callers=callers,
        contender=name,
        p50_ms=median(medians) * 1000,
        spread_ms=(min(medians) * 1000, max(medians) * 1000),
        p95_ms=percentile(everything, 0.95) * 1000,
        p99_ms=percentile(everything, 0.99) * 1000,
        per_second=median(len(one.latencies) / one.elapsed for one in samples),
        ratio=median(ratios),
        ratio_spread=(min(ratios), max(ratios)),
        rounds=len(samples),
        calls=len(everything),
        errors=errors,
    )


def disk_bytes(folder: Path) -> dict[str, int]:
    """Return the bytes that the stores of a data folder take on the disk; Postgres's log of writes by itself."""
    taken = {"postgres": 0, "wal": 0, "index": 0, "keys": 0}
    for top in ("postgres", "index", "keys"):
        for path in (folder / top).rglob("*"):
            if path.is_file():
                taken["wal" if "pg_wal" in path.parts else top] += path.stat().st_blocks * 512
    return taken


def _at_rest(home: Path, empty: dict[str, int], size: int) -> dict[str, Any]:
    """Return what a stopped service takes on the disk, and what of it each memory brought. The log is recycled."""
    taken = disk_bytes(home)
    grown = {name: max(0, taken[name] - empty[name]) / size for name in ("postgres", "index", "keys")}
    return {
        "memories": size,
        "disk_bytes": taken,
        "empty_disk_bytes": empty,
        "disk_bytes_per_memory": grown | {"all": sum(grown.values())},
    }


def _stock_alone(folder: Path, model: Path, size: int) -> dict[str, Any]:
    """Return what Mem0 with its own store takes on the disk and, in a process of its own, in memory and to start."""
    disk = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    command = [sys.executable, "-m", "bench.stock", str(folder), str(model)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
    alone = json.loads(done.stdout.splitlines()[-1])
    return {"start_seconds": alone["seconds"], "memory_bytes": alone["bytes"], "disk_bytes_per_memory": disk / size}
