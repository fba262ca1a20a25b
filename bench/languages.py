"""How well questions in four languages find their facts: by meaning alone, and with the words of each language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.phrases import FACTS, QUESTIONS, lines
from bench.serving import new_caller, own_services, scratch_folder
from service import wiring
from service.memories.actions import Query
from service.records import Hit, Message, NewMemories, SubjectNames
from service.scope import Caller
from service.settings.languages import Language

_USER: Final = "reader"


@dataclass(frozen=True, slots=True)
class Found:
    """The ranks of the right facts, from 1, for the questions in one language about facts in one language."""

    asked: Language
    stored: Language
    meaning: Sequence[int]
    english_words: Sequence[int]
    own_words: Sequence[int]

    @property
    def columns(self) -> list[str]:
        """How many came first and among the first five, and the mean rank: by meaning, with English, with its words."""
        return [
            f"{sum(rank == 1 for rank in ranks)} / {sum(rank <= 5 for rank in ranks)} / {fmean(ranks):.1f}"
            for ranks in (self.meaning, self.english_words, self.own_words)
        ]


def measure(services: wiring.Services) -> list[Found]:
    """Store the facts of each language in a tenant with English words and in one with its own, and ask all questions.

    The last row asks about German facts in English.
    """
    pairs = [(language, language) for language in FACTS] + [(Language.ENGLISH, Language.GERMAN)]
    callers = {
        (stored, words): _filled(services, stored, words) for stored in FACTS for words in {stored, Language.ENGLISH}
    }
    found = []
    for asked, stored in pairs:
        english, own = callers[stored, Language.ENGLISH], callers[stored, stored]
        found.append(
            Found(
                asked,
                stored,
                _ranks(services, own, asked, stored, by=lambda hit: hit.signals.semantic),
                _ranks(services, english, asked, stored),
                _ranks(services, own, asked, stored),
            )
        )
    return found


def main() -> None:
    """Measure on services of its own and print the table."""
    with scratch_folder() as folder, ExitStack() as stack:
        found = measure(own_services(folder / "data", stack))
    table = Table("questions", "facts", "meaning alone", "search, english", "search, its language")
    for one in found:
        table.add_row(one.asked.value, one.stored.value, *one.columns)
    Console().print(table, "first of 10 / among the first five / mean rank of 50")


def _filled(services: wiring.Services, stored: Language, words: Language) -> Caller:
    caller = new_caller(services, f"{stored}-by-{words}", words)
    # One by one: they are no conversation.
    for fact in lines(FACTS[stored]):
        new = NewMemories([Message("user", fact)], SubjectNames(user_id=_USER), infer=False)
        services.adds.add(caller, caller.scope, new)
    return caller


def _ranks(
    services: wiring.Services,
    caller: Caller,
    asked: Language,
    stored: Language,
    *,
    by: Callable[[Hit], float] | None = None,
) -> list[int]:
    """Return the rank of each question's fact; of one that was not found that after the last."""
    facts, ranks = lines(FACTS[stored]), []
    for number, question in enumerate(lines(QUESTIONS[asked])):
        hits = list(services.memories.search(caller, caller.scope, Query(question, limit=len(facts))))
        if by is not None:
            hits.sort(key=by, reverse=True)
        texts = [hit.memory.text for hit in hits]
        ranks.append(texts.index(facts[number]) + 1 if facts[number] in texts else len(facts) + 1)
    return ranks


if __name__ == "__main__":
    main()
