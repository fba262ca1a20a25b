"""How well questions find plain facts of several people, stored in no order, and what each signal gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from random import Random
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.plain_facts import FACTS
from bench.serving import new_caller, own_services, scratch_folder
from service import wiring
from service.filters.build import subjects_filter
from service.index.strength import strength
from service.memories.actions import Query
from service.records import Hit, Message, NewMemories, SubjectNames
from service.scope import Caller

CUTS: Final = (1, 5, 10)
#: Orders in which the facts are stored, each for a user of its own: what neighbours give must not depend on one.
ORDERS: Final = 5


def measure(services: wiring.Services, caller: Caller) -> dict[str, tuple[float, ...]]:
    """Return by way of ordering the share of questions whose fact is among the best 1, 5 and 10 hits."""
    asked = [(question, text) for text, question in FACTS if question is not None]
    ranks: dict[str, list[int | None]] = {}
    for number in range(ORDERS):
        where = subjects_filter(_stored(services, caller, number))
        for question, text in asked:
            found = services.memories.search(caller, caller.scope, Query(question, where, limit=max(CUTS)))
            ranks.setdefault("as served", []).append(_rank(found, text))
            # With as many as there are, all have their signals.
            every = services.memories.search(caller, caller.scope, Query(question, where, limit=len(FACTS)))
            for name, key in _ways(every).items():
                ranks.setdefault(name, []).append(_rank(sorted(every, key=key, reverse=True), text))
    return {
        name: tuple(sum(rank is not None and rank <= cut for rank in found) / len(found) for cut in CUTS)
        for name, found in ranks.items()
    }


def _ways(found: Sequence[Hit]) -> dict[str, Callable[[Hit], float]]:
    best = max((hit.signals.bm25 for hit in found), default=0.0)
    return {
        "without neighbours": lambda hit: hit.signals.rank - hit.signals.neighbours,
        "meaning and words": lambda hit: strength(hit.signals.semantic, hit.signals.bm25, best),
        "meaning alone": lambda hit: hit.signals.semantic,
        "words alone": lambda hit: hit.signals.bm25,
    }


def _stored(services: wiring.Services, caller: Caller, number: int) -> SubjectNames:
    """Store all facts for one user in an order of its own, each by itself, as agents do."""
    subjects = SubjectNames(user_id=f"facts-{number}")
    texts = [text for text, _ in FACTS]
    Random(number).shuffle(texts)
    for text in texts:
        services.adds.add(caller, caller.scope, NewMemories([Message("user", text)], subjects, infer=False))
    services.indexing.drain()
    return subjects


def _rank(hits: Sequence[Hit], text: str) -> int | None:
    return next((place for place, hit in enumerate(hits, start=1) if hit.memory.text == text), None)


def main() -> None:
    """Measure in a service of its own and print one table."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        services = own_services(folder / "data", stack)
        found = measure(services, new_caller(services, "facts"))
    questions = sum(question is not None for _, question in FACTS)
    table = Table(title=f"{questions} questions about {len(FACTS)} plain facts, stored in {ORDERS} orders")
    table.add_column("order")
    for cut in CUTS:
        table.add_column(f"recall@{cut}", justify="right")
    for name, shares in found.items():
        table.add_row(name, *(f"{share:.3f}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
