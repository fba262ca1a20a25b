"""What the audit trail costs: searches and adds with it and without it, by turns in one run on one installation.

"Without" is a twin of the trail that writes nothing, which exists here only. Everything else is as in production:
durable commits, row-level security, sealing in the background. Targets: the median search takes at most 15% more, adds
keep at least 85% of their throughput.

    python -m bench.audit_cost [--memories 2000] [--rounds 6] [--searches 100] [--adds 100] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from typing import Any, Final

from bench.serving import scratch_folder
from service import wiring
from service.audit.trail import Trail
from service.auth.keys import Grant, Keys
from service.filters.build import subjects_filter
from service.memories.actions import Query
from service.migrations.runner import upgrade
from service.policy.gate import Gate
from service.policy.table import ROLES
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller
from service.settings import load_settings

SEARCH_TARGET: Final = 1.15
ADD_TARGET: Final = 0.85
_WRITERS: Final = 4
_THINGS: Final = ("tea", "rain", "trains", "chess", "maps", "bread", "cats", "jazz", "soup", "hills", "ink", "boats")
_PLACES: Final = ("home", "work", "school", "the lake", "the station", "the market", "the office", "the garden")


class SwitchedTrail(Trail):
    """The trail, and at a switch its twin that writes nothing."""

    on = True

    def write(self, *given: Any, **more: Any) -> None:
        """Write a row, or do nothing."""
        if self.on:
            super().write(*given, **more)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("memories", 2000), ("rounds", 6), ("searches", 100), ("adds", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with installation() as (services, trail, caller):
        numbers = count()
        fill(services, caller, numbers, options.memories)
        found = measured(services, trail, caller, numbers, options)
    if options.json:
        print(json.dumps(found))
        return
    for name, values in found.items():
        print(f"{name:<7} " + "  ".join(f"{key} {value:g}" for key, value in values.items()))


def measured(
    services: wiring.Services, trail: SwitchedTrail, caller: Caller, numbers: Iterator[int], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Return medians and throughputs, both ways; the two ways take turns, so that drift hits both."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    rates: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * options.rounds):
        # on off off on on off …: neither way is always the first of a pair.
        trail.on = turn % 4 in (0, 3)
        seconds[trail.on] += [timed(lambda: search(services, caller, next(numbers))) for _ in range(options.searches)]
    for turn in range(2 * options.rounds):
        trail.on = turn % 4 in (0, 3)
        rates[trail.on].append(options.adds / timed(lambda: fill(services, caller, numbers, options.adds, each=1)))
    on, off = (statistics.median(seconds[way]) * 1000 for way in (True, False))
    fast, faster = (statistics.median(rates[way]) for way in (True, False))
    return {
        "search": {
            "p50_ms_on": round(on, 3),
            "p50_ms_off": round(off, 3),
            "ratio": round(on / off, 3),
            "target": SEARCH_TARGET,
        },
        "add": {
            "per_second_on": round(fast, 1),
            "per_second_off": round(faster, 1),
            "ratio": round(fast / faster, 3),
            "target": ADD_TARGET,
        },
    }


def search(services: wiring.Services, caller: Caller, number: int) -> None:
    """Search the memories of one user."""
    where = subjects_filter(SubjectNames(user_id=f"user{number % 10}"))
    services.memories.search(caller, caller.scope, Query(sentence(number * 7), where))


def fill(services: wiring.Services, caller: Caller, numbers: Iterator[int], total: int, *, each: int = 50) -> None:
    """Add memories from several threads, some in each call."""

    def add(call: int) -> None:
        messages = [Message("user", sentence(next(numbers))) for _ in range(each)]
        new = NewMemories(messages, SubjectNames(user_id=f"user{call % 10}"), infer=False)
        services.adds.add(caller, caller.scope, new)

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(add, range(total // each)))


def sentence(number: int) -> str:
    """Return a sentence that is like others and the same as none."""
    return f"In year {number} I found {_THINGS[number % 12]} at {_PLACES[number // 12 % 8]}"


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def installation() -> Iterator[tuple[wiring.Services, SwitchedTrail, Caller]]:
    """Open a new embedded installation with the switched trail, sealing in the background, and a caller."""
    with scratch_folder() as folder, ExitStack() as stack:
        settings = load_settings(environ={}, flags={"data_dir": folder / "data", "log": {"level": "error"}})
        connections = wiring.reach_record(settings, stack, make=True)
        upgrade(connections.owner_dsn or "", app_role=settings.database.app_role)
        plain = wiring.open_installation(settings, connections, stack)
        trail = SwitchedTrail(plain.database, plain.keyring)
        gate = Gate(trail)
        keys = Keys(plain.database, plain.keyring, plain.subjects, trail, gate, plain.tombstones)
        switched = replace(plain, trail=trail, gate=gate, keys=keys)
        services = wiring.open_services(switched, stack)
        sealing = wiring.seal_trail(switched)
        sealing.keeper.start()
        stack.callback(sealing.keeper.stop)
        tenant = switched.tenants.create("bench").id
        principal = keys.find_principal(keys.mint_for_installation(tenant, Grant(ROLES["admin"])).secret)
        if principal is None:
            raise RuntimeError("the key that was just made is not known")
        yield services, trail, Caller(principal, request_id="bench", client="bench")


if __name__ == "__main__":
    main()
