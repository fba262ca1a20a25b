"""A conversation that is kept turn by turn is searched as one; facts of other people stay out of it."""

from __future__ import annotations

import pytest

from service.filters.parse import parse_filter
from service.memories.actions import Query
from service.records import Hit, Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services

pytestmark = pytest.mark.integration

TALKS = {
    "camping": [
        "Bob: Did you buy a tent for the camping trip at the lake?",
        "Ann: The green one with two doors.",
        "Bob: A tent like that keeps a camping trip dry.",
        "Ann: The camping place at the lake has tents too.",
        "Bob: I love to camp in a tent beside a lake.",
    ],
    "piano": [
        "Bob: How are the piano lessons?",
        "Ann: My teacher makes me play piano scales.",
        "Bob: Piano scales are good for the fingers.",
        "Ann: I practise the piano before breakfast.",
        "Bob: The neighbours hear your piano then.",
    ],
    "garden": [
        "Bob: Are the tomatoes in the garden ripe?",
        "Ann: The garden has too little sun for tomatoes.",
        "Bob: Plant potatoes in the garden instead.",
        "Ann: Potatoes and carrots grow well in my garden.",
        "Bob: I will bring seeds for your garden.",
    ],
}
ANSWER = "Ann: The green one with two doors."


def tell(services: Services, caller: Caller, texts: list[str], user: str, *, at_once: bool) -> None:
    """Keep turns for a user, in one add or in one each."""
    for part in [texts] if at_once else [[text] for text in texts]:
        new = NewMemories([Message("user", text) for text in part], SubjectNames(user_id=user), infer=False)
        services.adds.add(caller, caller.scope, new)


def ask(services: Services, caller: Caller, filters: object) -> list[Hit]:
    """Ask for the tent."""
    query = Query("which tent did she buy for the camping trip?", parse_filter(filters), limit=15, threshold=0.0)
    return list(services.memories.search(caller, caller.scope, query))


@pytest.mark.parametrize("at_once", [True, False])
def test_the_answer_beside_the_question_rises(services: Services, caller: Caller, at_once: bool) -> None:
    tell(services, caller, [text for talk in TALKS.values() for text in talk], "ann", at_once=at_once)
    tell(services, caller, ["Cy: The green one with two doors."], "cy", at_once=True)
    hits = ask(services, caller, {"user_id": "ann"})
    texts = [hit.memory.text for hit in hits]
    alone = sorted(hits, key=lambda hit: -hit.signals.fused)
    assert texts.index(ANSWER) < [hit.memory.text for hit in alone].index(ANSWER)
    (answer,) = [hit for hit in hits if hit.memory.text == ANSWER]
    assert answer.signals.neighbours > 0
    assert [hit.signals.rank for hit in hits] == sorted((hit.signals.rank for hit in hits), reverse=True)
    # The same words of somebody else stand beside nothing.
    (other,) = ask(services, caller, {"user_id": "cy"})
    assert other.signals.neighbours == 0
