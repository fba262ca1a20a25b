"""Times search and add of all contenders side by side, and takes the service's start-up times and footprint."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Final

import psutil

from bench.bare import Bare
from bench.contenders import Contender, Embedding, Floor, InProcess, embedding_rate
from bench.remote import Mcp, Rest
from bench.serving import cpu_seconds, serving
from bench.stock import Stock
from bench.timing import Sample, percentile, sample
from service.embeddings.minilm import MiniLM
from service.storage.stored import IndexEntry

Tell = Callable[[str], None]
Keep = Callable[["Results"], None]
OPERATIONS: Final = ("search", "add")
#: Numbers of the texts that are added while it is timed: beyond those that were loaded.
_NEW_TEXTS: Final = 100_000_000
#: Memories that a tenant needs so that a search can find as many as it asks for.
FEWEST_EACH: Final = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: numbers of memories, of tenants and of callers, runs of each, and seconds of one run.

    Cases where a tenant would have more than `most_each` memories are left out.
    Stock Mem0 is measured up to `stock_size` memories: its search takes over a second beyond.
    Once `budget` seconds are over, what is left is run once only: a busy machine makes the figures coarse, not late.
    """

    sizes: tuple[int, ...] = (1_000, 10_000)
    tenants: tuple[int, ...] = (1, 10)
    callers: tuple[int, ...] = (1, 16, 64)
    rounds: int = 3
    seconds: float = 1.0
    most_each: int | None = None
    stock: bool = True
    stock_size: int = 10_000
    budget: float = 400.0

    def steps(self) -> list[tuple[int, list[int]]]:
        """Return the numbers of tenants with those of memories that are measured with them, the fewest first."""
        most = self.most_each or math.inf
        all_ = [
            (tenants, [size for size in sorted(set(self.sizes)) if FEWEST_EACH <= size / tenants <= most])
            for tenants in dict.fromkeys(self.tenants)
        ]
        return [(tenants, sizes) for tenants, sizes in all_ if sizes]


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed: with so many memories in all, spread evenly over so many tenants, by so many callers at once."""

    memories: int
    tenants: int
    operation: str
    callers: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One contender's figures for one case, in milliseconds and calls per second.

    `p50_ms` is the median of the runs' medians and `spread_ms` the least and the greatest of them; the other
    percentiles are over all calls of all runs. `ratio` compares with the floor of the same run, the median over runs.
    `cpu_ms` is the processor time of one call on the side that answers it, Postgres included.
    """

    memories: int
    tenants: int
    operation: str
    callers: int
    contender: str
    p50_ms: float
    spread_ms: tuple[float, float]
    p95_ms: float
    p99_ms: float
    per_second: float
    cpu_ms: float
    ratio: float
    ratio_spread: tuple[float, float]
    rounds: int
    calls: int
    errors: dict[str, int]


@dataclass
class Results:
    """What a run found so far. Bytes are bytes, times seconds unless the name says otherwise.

    `complete` once all that the plan names was measured.
    """

    plan: dict[str, Any]
    machine: dict[str, float]
    complete: bool = False
    cells: list[Cell] = field(default_factory=list)
    starts: dict[str, float] = field(default_factory=dict)
    footprints: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the results as what JSON can say: null where no call succeeded, and for a plan without an end."""
        said: dict[str, Any] = _said(asdict(self))
        return said


def _said(value: Any) -> Any:
    match value:
        case dict():
            return {name: _said(one) for name, one in value.items()}
        case list() | tuple():
            return [_said(one) for one in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def machine() -> dict[str, float]:
    """Return the cores that this process may use and the memory in gibibytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return {"cores": cores, "memory_gib": round(psutil.virtual_memory().total / 2**30, 1)}


class Race:
    """One whole measurement: for each number of tenants a service is started, loaded step by step, and timed.

    All contenders are timed beside each other at each size. `folder` takes everything that is written; `tell` hears
    what is being done, `keep` gets what was found after each case and each size: a long run may not reach its end.
    """

    def __init__(self, plan: Plan, folder: Path, tell: Tell, keep: Keep) -> None:
        self._plan = plan
        self._folder = folder
        self._tell = tell
        self._keep = keep
        self._results = Results(asdict(plan), machine())
        self._numbers = itertools.count(_NEW_TEXTS)
        self._until = time.perf_counter() + plan.budget

    def run(self) -> Results:
        """Measure everything that the plan names."""
        for tenants, sizes in self._plan.steps():
            self._run(tenants, sizes)
        self._results.complete = True
        self._keep(self._results)
        return self._results

    def _run(self, tenants: int, sizes: Sequence[int]) -> None:
        home = self._folder / f"tenants-{tenants}"
        for name in ("first", "second"):
            self._tell(f"starting, {name} time")
            with serving(home) as served:
                self._results.starts.setdefault(name, served.seconds)
                api_keys = [served.api_key]
        with ExitStack() as stack:
            api_keys += InProcess(home, api_keys, stack).new_tenants(tenants - 1)
        empty = disk_bytes(home)
        loaded = 0
        for size in sizes:
            self._tell(f"loading {size} memories of {tenants} tenants")
            with ExitStack() as stack:
                engine = InProcess(home, api_keys, stack)
                numbers = range(loaded, size // tenants)
                rates = {"load_per_second": engine.fill(numbers)}
                rates["embed_per_second"] = embedding_rate(MiniLM(home / "model"), numbers)
                engine.maintain()
            loaded = size // tenants
            footprint = {"tenants": tenants} | _at_rest(home, empty, loaded * tenants) | rates
            self._results.footprints.append(footprint | self._measure(home, api_keys, size))
            self._keep(self._results)
        shutil.rmtree(home, ignore_errors=True)

    def _measure(self, home: Path, api_keys: Sequence[str], size: int) -> dict[str, Any]:
        """Time every contender with this many memories; return what the service and stock Mem0 take in memory.

        First those in this process and beside it, then REST and MCP, so that no two services of a million have to find
        room at once; the floor is timed beside both. Each time with a copy, which nobody has added to: what is added
        while it is timed, and the bare server's tables, would be counted as what the next size takes on the disk.
        """
        embedder = MiniLM(home / "model")
        taken: dict[str, Any] = {}
        with ExitStack() as stack:
            with self._copied(home) as copy:
                floor = self._inside(copy, api_keys, size, embedder, taken, stack)
            copy = stack.enter_context(self._copied(home))
            self._tell(f"starting with {size} memories")
            served = stack.enter_context(serving(copy))
            self._results.starts[f"with {size} memories of {len(api_keys)} tenants"] = served.seconds
            rest, mcp = Rest(served.url, api_keys), Mcp(served.url, api_keys)
            stack.callback(rest.close)
            stack.callback(mcp.close)
            clock = partial(cpu_seconds, served.pid, copy)
            self._time([floor, rest, mcp], size, len(api_keys), {Rest.name: clock, Mcp.name: clock})
            taken["memory_bytes"] = served.memory_bytes()
        return taken

    @contextmanager
    def _copied(self, home: Path) -> Iterator[Path]:
        copy = self._folder / "copy"
        subprocess.run(["cp", "-a", str(home), str(copy)], check=True)
        try:
            yield copy
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _inside(
        self,
        home: Path,
        api_keys: Sequence[str],
        size: int,
        embedder: MiniLM,
        taken: dict[str, Any],
        kept: ExitStack,
    ) -> Floor:
        """Fill and time what has no service around it; return the floor, which `kept` closes, and close the others.

        What stock Mem0 takes goes to `taken`.
        """
        with ExitStack() as stack:
            engine = InProcess(home, api_keys, stack)
            floor = Floor(self._folder / "floor", embedder, engine.scopes)
            kept.callback(shutil.rmtree, self._folder / "floor", ignore_errors=True)
            kept.callback(floor.close)
            bare = Bare(self._folder / "bare", home / "model", engine.dsn, engine.scopes)
            stack.callback(shutil.rmtree, self._folder / "bare", ignore_errors=True)
            stack.callback(bare.close)
            contenders: list[Contender] = [Embedding(embedder), floor, bare, engine]
            self._tell(f"loading {size} memories into the others")
            for scope in engine.scopes:
                for entries in engine.entries(scope):
                    floor.fill(scope, (entry.vector for entry in entries))
                    bare.fill(scope, entries)
            if self._plan.stock and size <= self._plan.stock_size:
                stack.callback(shutil.rmtree, self._folder / "stock", ignore_errors=True)
                filled = map(engine.entries, engine.scopes)
                contenders.append(_stock(self._folder / "stock", home / "model", embedder, filled, size, taken, stack))
            floor.start()
            clocks = {
                Bare.name: partial(cpu_seconds, bare.start(), home),
                InProcess.name: partial(cpu_seconds, os.getpid(), home),
            }
            self._time(contenders, size, len(api_keys), clocks)
        return floor

    def _time(
        self,
        contenders: Sequence[Contender],
        size: int,
        tenants: int,
        clocks: Mapping[str, Callable[[], float]],
    ) -> None:
        """Time contenders, the floor among them, and note the cells; a floor that was noted before stays."""
        for operation, callers in itertools.product(OPERATIONS, self._plan.callers):
            names = ", ".join(one.name for one in contenders)
            self._tell(f"timing {operation} with {size} memories, {tenants} tenants and {callers} callers: {names}")
            case = Case(size, tenants, operation, callers)
            cells = timed(contenders, case, self._plan, self._numbers, clocks, self._until)
            noted = {_order(cell) for cell in self._results.cells if cell.contender == Floor.name}
            self._results.cells += [one for one in cells if one.contender != Floor.name or _order(one) not in noted]
            self._results.cells.sort(key=_order)
            self._keep(self._results)


def timed(
    contenders: Sequence[Contender],
    case: Case,
    plan: Plan,
    numbers: Iterator[int],
    clocks: Mapping[str, Callable[[], float]] = MappingProxyType({}),
    until: float = math.inf,
) -> list[Cell]:
    """Time the contenders in turn, round after round, so that a busy moment of the machine meets all of them.

    `clocks` tell a contender's processor time where it is not this process's. After `until` no further round begins.
    A tenant's first call of an operation is not timed: it meets cold caches, or makes the user whose memory it is.
    """
    for one in contenders:
        for _ in range(case.tenants):
            with suppress(Exception):  # what cannot be called is told by the calls that are timed
                _call(one, case)(next(numbers))
    samples: dict[str, list[Sample]] = {one.name: [] for one in contenders}
    for number in range(plan.rounds):
        if number and time.perf_counter() > until:
            break
        for one in contenders:
            call, cpu = _call(one, case), clocks.get(one.name, time.process_time)
            samples[one.name].append(sample(call, numbers, callers=case.callers, seconds=plan.seconds, cpu=cpu))
    floor_medians = [percentile(one.latencies, 0.5) for one in samples[Floor.name]]
    return [_cell(case, name, own, floor_medians) for name, own in samples.items()]


def _call(contender: Contender, case: Case) -> Callable[[int], None]:
    return contender.search if case.operation == "search" else contender.add


def _cell(case: Case, name: str, samples: Sequence[Sample], least: Sequence[float]) -> Cell:
    # A round in which no call succeeded has no median, and NaN has no order.
    pairs = [(percentile(one.latencies, 0.5), floor) for one, floor in zip(samples, least, strict=True)]
    pairs = [pair for pair in pairs if not math.isnan(pair[0])] or [(math.nan, math.nan)]
    medians, ratios = [own for own, _ in pairs], [own / floor for own, floor in pairs]
    everything = [latency for one in samples for latency in one.latencies]
    errors = {kind: sum(one.errors[kind] for one in samples) for one in samples for kind in one.errors}
    return Cell(
        **asdict(case),
        contender=name,
        p50_ms=median(medians) * 1000,
        spread_ms=(min(medians) * 1000, max(medians) * 1000),
        p95_ms=percentile(everything, 0.95) * 1000,
        p99_ms=percentile(everything, 0.99) * 1000,
        per_second=median(len(one.latencies) / one.elapsed for one in samples),
        cpu_ms=sum(one.cpu for one in samples) / max(1, len(everything)) * 1000,
        ratio=median(ratios),
        ratio_spread=(min(ratios), max(ratios)),
        rounds=len(samples),
        calls=len(everything),
        errors=errors,
    )


def _order(cell: Cell) -> tuple[int, int, int, int]:
    """Return what cells of one case have in common; in the order of the cases."""
    return cell.tenants, cell.memories, OPERATIONS.index(cell.operation), cell.callers


@dataclass(frozen=True, slots=True)
class Growth:
    """How one caller's p50 grew from the fewest memories to the most of as large tenants."""

    contender: str
    operation: str
    each: int
    fewest: int
    most: int
    p50_ms: tuple[float, float]


def growth(cells: Sequence[Cell]) -> list[Growth]:
    """Return how each contender's search and add grew where tenants of one size are fewer and more."""
    groups: dict[tuple[str, str, int], dict[int, float]] = {}
    for cell in cells:
        if cell.callers == 1 and cell.calls:
            by_memories = groups.setdefault((cell.contender, cell.operation, cell.memories // cell.tenants), {})
            by_memories[cell.memories] = cell.p50_ms
    return [
        Growth(
            *case, min(by_memories), max(by_memories), (by_memories[min(by_memories)], by_memories[max(by_memories)])
        )
        for case, by_memories in groups.items()
        if len(by_memories) > 1
    ]


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


def _stock(
    folder: Path,
    model: Path,
    embedder: MiniLM,
    tenants: Iterable[Iterable[Sequence[IndexEntry]]],
    size: int,
    taken: dict[str, Any],
    stack: ExitStack,
) -> Stock:
    """Fill stock Mem0 and return it; note what it takes before anything else is added to it. The stack closes it."""
    filled = Stock(folder, embedder)
    number = 0
    for number, parts in enumerate(tenants, start=1):
        for entries in parts:
            filled.fill(number - 1, entries)
    filled.close()
    taken["mem0ai"] = _stock_alone(folder, model, size)
    stock = Stock(folder, embedder, tenants=number)
    stack.callback(stock.close)
    return stock


def _stock_alone(folder: Path, model: Path, size: int) -> dict[str, Any]:
    """Return what Mem0 with its own store takes on the disk and, in a process of its own, in memory and to start."""
    disk = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    command = [sys.executable, "-m", "bench.stock", str(folder), str(model)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
    alone = json.loads(done.stdout.splitlines()[-1])
    return {"start_seconds": alone["seconds"], "memory_bytes": alone["bytes"], "disk_bytes_per_memory": disk / size}
