"""`python -m bench`: the speed and the footprint of Memvault beside the floor and beside stock Mem0, in one table."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import httpx
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bench.plot import draw
from bench.remote import HITS
from bench.running import measure
from bench.serving import NotServing, scratch_folder
from bench.speed import FEWEST_EACH, Cell, Plan, Race, Results, growth

_QUICK = Plan(sizes=(200,), tenants=(2,), callers=(1, 4), rounds=1, seconds=0.2)
#: Becomes results.json once it is whole.
_UNFINISHED: Final = "results.json.new"


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A small run of under a minute: does it work at all?")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    sizes: Annotated[str | None, typer.Option(help="Numbers of memories. Default: 1000,10000")] = None,
    tenants: Annotated[str | None, typer.Option(help="Numbers of tenants. Default: 1,10")] = None,
    callers: Annotated[str | None, typer.Option(help="Numbers of concurrent callers. Default: 1,16,64")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Runs of each measurement. Default: 3")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.05, help="Seconds of one run. Default: 1")] = None,
    large: Annotated[bool, typer.Option("--large", help="Add 100000 memories, and 100 tenants: an hour.")] = False,
    million: Annotated[bool, typer.Option("--million", help="Add 1000000 memories: a day's work.")] = False,
    most_each: Annotated[
        int | None, typer.Option(min=100, help="Leave out where a tenant would have more memories.")
    ] = None,
    stock: Annotated[bool, typer.Option(help="Measure stock Mem0 too.")] = True,
    save: Annotated[
        Path | None, typer.Option(help="Folder for results.json, written as they come, and speed.svg.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Time a service that runs there instead, with MEM0_API_KEY.")] = None,
) -> None:
    """Time search and add: the floor, the engine, REST, MCP and stock Mem0, each in the same run."""
    if url is not None:
        _refuse_for_url(
            url, sizes, {"--tenants": tenants, "--large": large, "--million": million, "--most-each": most_each}
        )
    plan = _QUICK if quick else Plan()
    chosen = _numbers(sizes, "--sizes") or plan.sizes
    more = ((100_000,) if large else ()) + ((1_000_000,) if million else ())
    plan = replace(
        plan,
        sizes=(*chosen, *more),
        tenants=_numbers(tenants, "--tenants") or (*plan.tenants, *((100,) if more else ())),
        callers=tuple(dict.fromkeys(_numbers(callers, "--callers"))) or plan.callers,
        rounds=rounds or plan.rounds,
        seconds=seconds or plan.seconds,
        most_each=most_each,
        stock=stock and plan.stock,
        budget=math.inf if more else plan.budget,
    )
    if url is None and not plan.steps():
        raise typer.BadParameter(f"nothing is left to measure: a tenant needs {FEWEST_EACH} memories at least")
    api_key = None if url is None else _api_key()
    kept = _Kept(save)
    logging.disable(logging.WARNING)
    notes = Console(stderr=True)
    began = time.perf_counter()
    try:
        with scratch_folder() as folder, notes.status("") as status:
            tell = status.update if notes.is_terminal else notes.print
            if url is None or api_key is None:
                Race(plan, folder, tell, kept).run()
            else:
                measure(url, api_key, plan, folder, tell, kept)
    except KeyboardInterrupt:
        notes.print("interrupted")
        raise typer.Exit(130) from None
    except (httpx.HTTPError, httpx.InvalidURL, FileExistsError, NotServing) as error:
        notes.print(f"{url or 'the benchmark'}: {error}", markup=False)
        raise typer.Exit(1) from None
    finally:
        kept.tell(as_json=as_json)
    notes.print(f"measured in {time.perf_counter() - began:.0f} s")


class _Kept:
    """The results so far: in the folder as soon as they are there, on the screen in the end, whichever end it is."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._results: Results | None = None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / _UNFINISHED).write_bytes(b"")
            except OSError as error:
                raise typer.BadParameter(f"--save: {error.strerror}: {error.filename}") from None
            (folder / _UNFINISHED).unlink()

    def __call__(self, results: Results) -> None:
        self._results = results
        if self._folder is not None:
            text = json.dumps(results.document(), indent=1, allow_nan=False)
            (self._folder / _UNFINISHED).write_text(f"{text}\n", encoding="utf-8")
            (self._folder / _UNFINISHED).replace(self._folder / "results.json")

    def tell(self, *, as_json: bool) -> None:
        """Print what there is, and draw it."""
        if self._results is None:
            return
        if as_json:
            print(json.dumps(self._results.document(), allow_nan=False))
        else:
            # What is read by a program or kept in a file is not cut off at the width of a screen that is not there.
            show(self._results, Console(width=None if sys.stdout.isatty() else 120))
        if self._folder is not None:
            draw(self._results.document(), self._folder / "speed.svg")


def _refuse_for_url(url: str, sizes: str | None, others: Mapping[str, object]) -> None:
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise typer.BadParameter("--url: the address of a service, as https://memory.example.com")
    if given := [option for option, value in others.items() if value]:
        raise typer.BadParameter(f"{given[0]}: not with --url, which measures one tenant's service as it is")
    if sizes is not None and (len(chosen := _numbers(sizes, "--sizes")) != 1 or chosen[0] < HITS):
        raise typer.BadParameter(f"--sizes: with --url, one number of {HITS} at least")


def _api_key() -> str:
    key = os.environ.get("MEM0_API_KEY", "")
    if not key:
        raise typer.BadParameter("--url: set MEM0_API_KEY to a key that may read, write and delete memories there")
    return key


def show(results: Results, console: Console) -> None:
    """Print the results for a person."""
    machine = results.machine
    unfinished = "" if results.complete else "; ended before all was measured"
    table = Table(
        title=f"{machine['cores']:.0f} cores, {machine['memory_gib']:.0f} GiB{unfinished}",
        caption="p50: median of the runs' medians, and their spread; ratio: to the floor of the same run\n"
        "first column: memories / tenants × callers; cpu: of one call, where it is answered\n"
        f"{min(cell.rounds for cell in results.cells)} to {max(cell.rounds for cell in results.cells)} runs of each, "
        f"{min(cell.calls for cell in results.cells)} to {max(cell.calls for cell in results.cells)} calls; "
        "p99 of under 100 is the slowest",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    table.add_column("contender", no_wrap=True)
    for name in ("p50 ms", "spread", "p95", "p99", "calls/s", "cpu ms", "ratio", "spread"):
        table.add_column(name, justify="right", no_wrap=True)
    for _, group in groupby(results.cells, key=_case):
        cells = list(group)
        for cell in cells:
            table.add_row(*_row(cell, first=cell is cells[0]), end_section=cell is cells[-1])
    console.print(table)
    for cell in results.cells:
        for kind, count in cell.errors.items():
            console.print(f"{cell.contender}, {_case(cell)}: {count} calls failed ({kind})")
    for grown in growth(results.cells):
        before, after = grown.p50_ms
        console.print(
            f"{grown.contender}, {grown.operation}, tenants of {grown.each}: {before:.1f} ms with {grown.fewest} "
            f"memories, {after:.1f} with {grown.most}: {after / before:.2f} ×"
        )
    for name, seconds in results.starts.items():
        console.print(f"start, {name}: {seconds:.1f} s")
    for one in results.footprints:
        _show_footprint(one, console)


def _case(cell: Cell) -> str:
    tenants = f" of {cell.tenants} tenants" if cell.tenants > 1 else ""
    return (
        f"{cell.operation}, {cell.memories} memories{tenants}, {cell.callers} caller{'s' if cell.callers > 1 else ''}"
    )


def _row(cell: Cell, *, first: bool) -> Sequence[str]:
    return (
        f"{cell.operation} {cell.memories}/{cell.tenants} ×{cell.callers}" if first else "",
        cell.contender,
        f"{cell.p50_ms:.1f}",
        _range(cell.spread_ms, 1),
        f"{cell.p95_ms:.1f}",
        f"{cell.p99_ms:.1f}",
        f"{cell.per_second:.0f}",
        f"{cell.cpu_ms:.1f}",
        f"{cell.ratio:.2f}",
        _range(cell.ratio_spread, 2),
    )


def _range(values: tuple[float, float], digits: int) -> str:
    return f"{values[0]:.{digits}f}–{values[1]:.{digits}f}"


def _show_footprint(one: dict[str, object], console: Console) -> None:
    size, memory, disk, stock = (
        one.get(key) for key in ("memories", "memory_bytes", "disk_bytes_per_memory", "mem0ai")
    )
    assert isinstance(memory, dict)
    assert isinstance(disk, dict)
    loaded, alone = (float(str(one[key])) for key in ("load_per_second", "embed_per_second"))
    console.print(
        f"{size} memories: loaded {loaded:.0f}/s, {loaded / alone:.2f} of the embedder's own {alone:.0f}/s; "
        f"resident: service {_mib(memory['service'])}, "
        f"Postgres {_mib(memory['postgres'])}; disk per memory: "
        + ", ".join(f"{name} {count:.0f} B" for name, count in disk.items())
    )
    if isinstance(stock, dict):
        console.print(
            f"{size} memories in stock Mem0: resident {_mib(stock['memory_bytes'])}, "
            f"start {stock['start_seconds']:.1f} s, disk per memory {stock['disk_bytes_per_memory']:.0f} B"
        )


def _mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"


def _numbers(text: str | None, option: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(one) for one in (text or "").split(",") if one.strip())
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise typer.BadParameter(f"{option}: whole numbers over 0, separated by commas")
    return numbers


if __name__ == "__main__":
    typer.run(main)
