"""Storms: a mixed load from several clients, and faults at moments that a seed draws. Afterwards the ledgers judge.

Short in CI. A long one: `pytest -n0 tests/faults --faults-minutes 10 --faults-seed 7`. A failure names its seed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.faults.aftermath import judge, judge_stores
from tests.faults.keeping import Count, Doors
from tests.faults.ledger import Tally
from tests.faults.load import Writer
from tests.faults.setups import Embedded, Server, Setup
from tests.faults.storm import Orders, draw
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

WRITERS: Final = 3
#: Seconds in which the next calls come, whatever is away.
_CALLS_WITHIN: Final = 180.0

Show = Callable[[list[str]], None]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Print figures for whoever runs the tests, whether they pass or not."""

    def print_all(lines: list[str]) -> None:
        with capsys.disabled():
            print("\n" + "\n".join(f"  {line}" for line in lines))

    return print_all


def test_a_storm_over_one_process(orders: Orders, llm: ScriptedLLM, written_model: Path, show: Show) -> None:
    """The embedded set-up: `kill -9` leaves a Postgres behind, which the next start takes over."""
    with ExitStack() as stack:
        count = Count()
        blow(Embedded(llm, count, written_model, stack), count, orders, show)


def test_a_storm_over_replicas(
    orders: Orders, llm: ScriptedLLM, written_model: Path, tmp_path: Path, show: Show
) -> None:
    """Two services and two workers on common stores, each of which fails in its turn."""
    with ExitStack() as stack:
        count = Count()
        blow(Server(llm, count, written_model, tmp_path, stack), count, orders, show)


def blow(setup: Setup, count: Count, orders: Orders, show: Show) -> None:
    """Let a storm blow over a set-up, and judge what is left of it."""
    tally, writers = Tally(), list[Writer]()
    try:
        for kept in setup.kept:
            kept.start()
        for kept in setup.kept:
            assert kept.alive.wait(180), kept.memvault.stderr[-2000:]
        setup.make_keys()
        doors = Doors(setup.services)
        writers += [Writer(number, orders.seed, setup.keys, doors, count) for number in range(WRITERS)]
        began = time.monotonic()
        for writer in writers:
            writer.start()
        try:
            _faults(setup, count, orders, tally, began, writers)
        finally:
            setup.calm()
            count.closed.set()
            for writer in writers:
                writer.join()
        tally.seconds = time.monotonic() - began
        tally.asked = count.value
        tally.acknowledged = sum(writer.acknowledged for writer in writers)
        tally.unanswered = sum((writer.unanswered for writer in writers), Counter())
        judge(setup, writers, tally)
        judge_stores(setup)
    except BaseException as error:
        error.add_note(f"the same storm again: {orders.again}")
        raise
    finally:
        count.closed.set()
        for writer in writers:
            writer.close()
        for kept in setup.kept:
            kept.let_go()
            tally.exits += kept.exits
        show([orders.again, *tally.lines()])


def _faults(setup: Setup, count: Count, orders: Orders, tally: Tally, began: float, writers: list[Writer]) -> None:
    kinds = setup.kinds()
    once = {kind: times for kind, (times, _, _) in kinds.items()}
    weights = {kind: weight for kind, (_, weight, _) in kinds.items()}
    for fault in draw(orders, once, weights):
        assert count.wait_for(count.value + fault.after, seconds=_CALLS_WITHIN), "the calls stand still"
        assert [wrong for writer in writers for wrong in writer.wrong] == []
        time.sleep(fault.delay)
        kinds[fault.kind][2](fault)
        tally.faults[fault.kind] = tally.faults.get(fault.kind, 0) + 1
        if orders.minutes is not None and time.monotonic() - began > orders.minutes * 60:
            break
    # After the last one, too, calls are made.
    count.wait_for(count.value + 20, seconds=_CALLS_WITHIN)
