"""Raw answers of LLMs are read strictly: what is not understood is an error or a count, never silence."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.answers import AnswerLimits, Item, read_answer, read_procedure
from service.engine.errors import LlmAnswerMalformed, LlmAnswerUnparsable
from service.engine.mem0_import import import_mem0
from tests.llm.scripted import ODD_SHAPES

pytestmark = pytest.mark.unit

LIMITS = AnswerLimits(items=3, text=20, procedure=30, raw=2_000)


def texts(raw: object) -> list[str]:
    return list(read_answer(raw, LIMITS).items)


@pytest.mark.parametrize(
    "raw",
    [
        '{"memory": [{"text": "a"}, {"text": "b"}]}',
        '```json\n{"memory": [{"text": "a"}, {"text": "b"}]}\n```',
        'Here you are: {"memory": [{"text": "a"}, {"text": "b"}]} Anything else?',
        '<think>{"memory": []}</think>{"memory": [{"text": "a"}, {"text": "b"}]}',
        [{"type": "text", "text": '{"memory": [{"text": "a"}, '}, '{"text": "b"}]}'],
    ],
)
def test_an_answer_is_found_where_models_put_it(raw: object) -> None:
    assert texts(raw) == ["a", "b"]


def test_nothing_to_remember_is_an_answer() -> None:
    answer = read_answer('{"memory": []}', LIMITS)
    assert (answer.items, answer.offered, answer.dropped) == ({}, 0, {})


@pytest.mark.parametrize("raw", [None, "", "  \n", "<think>hm</think>", "I cannot help", '{"memory": [{"text": "a'])
def test_no_answer_is_not_nothing_to_remember(raw: object) -> None:
    with pytest.raises(LlmAnswerUnparsable):
        read_answer(raw, LIMITS)


@pytest.mark.parametrize("kind", ODD_SHAPES)
def test_an_odd_shape_is_an_error(kind: str) -> None:
    with pytest.raises(LlmAnswerMalformed):
        read_answer(ODD_SHAPES[kind], LIMITS)


@pytest.mark.parametrize("raw", [7, {"memory": []}, "[" * 100_000, '{"memory": [{"text": "' + "a" * 2_000 + '"}]}'])
def test_an_answer_that_is_no_text_or_too_much_is_an_error(raw: object) -> None:
    with pytest.raises(LlmAnswerMalformed):
        read_answer(raw, LIMITS)


def test_deep_nesting_is_not_a_crash() -> None:
    with pytest.raises(LlmAnswerUnparsable):
        read_answer("[" * 100_000, AnswerLimits())


def test_odd_items_are_dropped_and_counted() -> None:
    items: list[object] = [
        {"text": " a "},
        {"text": "a"},
        {"text": ""},
        {"text": "x" * 21},
        {"text": 1},
        "s",
        None,
        {"text": "b"},
        {"text": "c"},
        {"text": "d"},
        {"text": "\ud800"},
    ]
    answer = read_answer(json.dumps({"memory": items}), LIMITS)
    assert list(answer.items) == ["a", "b", "c"]
    assert answer.offered == len(items)
    assert answer.dropped == {"duplicate": 1, "empty": 1, "too_long": 1, "malformed": 4, "too_many": 1}
    assert answer.offered == len(answer.items) + sum(answer.dropped.values())


@pytest.mark.parametrize(
    ("speaker", "kept"), [("user", "user"), (" Assistant", "assistant"), ("root", None), (7, None), (None, None)]
)
def test_a_memory_is_attributed_to_a_known_speaker_or_to_none(speaker: object, kept: str | None) -> None:
    answer = read_answer(json.dumps({"memory": [{"text": "a", "attributed_to": speaker}]}), LIMITS)
    assert answer.items["a"].attributed_to == kept


@pytest.mark.parametrize(
    ("links", "kept"),
    [
        (["1", 0, "1"], (1, 0)),
        (["-1", "9999", "uuid", True, 1.5, None, "²"], ()),
        ("01", ()),
        ({"0": 1}, ()),
        (None, ()),
    ],
)
def test_links_are_positions_and_nothing_else(links: object, kept: tuple[int, ...]) -> None:
    answer = read_answer(json.dumps({"memory": [{"text": "a", "linked_memory_ids": links}]}), LIMITS)
    assert answer.items["a"].links == kept


def test_mem0_gets_each_text_whole(tmp_path: Path) -> None:
    """Mem0 cuts fences and thoughts out of the answer it parses."""
    import_mem0(tmp_path / "mem0")
    remove_code_blocks = import_module("mem0.memory.utils").remove_code_blocks

    answer = read_answer('{"memory": [{"text": "x \\u003cthink>y\\u003c/think> ``` é\\n z"}]}', AnswerLimits())
    assert list(answer.items) == ["x <think>y</think> ``` é\n z"]
    read_by_mem0 = json.loads(remove_code_blocks(answer.as_json()), strict=False)["memory"]
    assert [item["text"] for item in read_by_mem0] == list(answer.items)


def test_a_thought_inside_of_an_answer_is_taken_out_as_mem0_does() -> None:
    assert texts('{"memory": [{"text": "a<think>b</think>c"}]}') == ["ac"]


@given(st.lists(st.sampled_from(["<think>", "</think>", "<think", ">", "a", "\n"]), max_size=20).map("".join))
def test_thoughts_are_taken_out_as_mem0_takes_them(text: str) -> None:
    raw = json.dumps({"memory": [{"text": f"x{text}"}]})
    taken = json.loads(re.sub(r"<think>.*?</think>", "", raw, flags=re.DOTALL))["memory"][0]["text"]
    assert list(read_answer(raw, AnswerLimits()).items) == [taken.strip()]


@pytest.mark.parametrize("unit", ["<think>", "<think>a</think>", "</think>", "<think"])
def test_an_answer_of_thoughts_alone_is_read_at_once(unit: str) -> None:
    """Each of a million characters is looked at a few times, not each time that something opens before it."""
    raw = unit * (1_000_000 // len(unit))
    for read in (read_answer, read_procedure):
        with pytest.raises((LlmAnswerUnparsable, LlmAnswerMalformed)):
            read(raw, AnswerLimits())


@pytest.mark.parametrize(
    ("head", "opens", "inner", "closes"),
    [("", "```\n", "steps", "\n```"), ("steps", "<thi", "<think></think>", "nk></think>")],
)
def test_wrapping_inside_of_wrapping_has_an_end(head: str, opens: str, inner: str, closes: str) -> None:
    assert read_procedure(head + opens * 5 + inner + closes * 5, LIMITS) == "steps"
    with pytest.raises(LlmAnswerMalformed, match="inside each other"):
        read_procedure(head + opens * 40_000 + inner + closes * 40_000, AnswerLimits())


@pytest.mark.parametrize(
    "raw", ["steps", "  steps\n", "```text\nsteps\n```", "<think>hm</think>```\n```\nsteps\n```\n```"]
)
def test_a_procedure_comes_without_its_wrapping(raw: str) -> None:
    assert read_procedure(raw, LIMITS) == "steps"


@pytest.mark.parametrize("raw", [None, "", "<think>hm</think>", "```\n\n```"])
def test_an_empty_procedure_is_no_answer(raw: str | None) -> None:
    with pytest.raises(LlmAnswerUnparsable):
        read_procedure(raw, LIMITS)


@pytest.mark.parametrize("raw", ["x" * 31, "a\x00", "\ud800", {"text": "a"}])
def test_an_odd_procedure_is_an_error(raw: object) -> None:
    with pytest.raises(LlmAnswerMalformed):
        read_procedure(raw, LIMITS)


@pytest.mark.parametrize("kind", ODD_SHAPES)
def test_errors_do_not_repeat_the_answer(kind: str) -> None:
    raw = ODD_SHAPES[kind].replace("a fact", "canary-7f3a")
    with pytest.raises(LlmAnswerMalformed) as caught:
        read_answer(raw, LIMITS)
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


def test_of_the_categories_only_those_of_the_list_are_kept_as_the_list_spells_them() -> None:
    named: list[Any] = [["travel", "HEALTH", "made up", 7, None, "Travel"], "travel", {"travel": 1}, None, [["travel"]]]
    raw = json.dumps({"memory": [{"text": f"fact {n}", "categories": one} for n, one in enumerate(named)]})
    items = read_answer(raw, AnswerLimits(), ["Travel", "Health"]).items.values()
    assert [item.categories for item in items] == [("Travel", "Health"), ("Travel",), (), (), ()]
    assert all(item.categories == () for item in read_answer(raw, AnswerLimits()).items.values())


def test_what_an_item_says_of_its_owner_is_not_read() -> None:
    forged = {"text": "a fact", "user_id": "bob", "id": "9", "tenant_id": "x", "metadata": {"user_id": "bob"}}
    (item,) = read_answer(json.dumps({"memory": [forged]}), AnswerLimits()).items.values()
    assert item == Item("a fact", None, ())


def test_links_are_bounded() -> None:
    raw = json.dumps({"memory": [{"text": "a fact", "linked_memory_ids": [str(n) for n in range(999)] * 20}]})
    (item,) = read_answer(raw, AnswerLimits()).items.values()
    assert item.links == tuple(range(AnswerLimits().links))


def test_what_is_superseded_is_linked_too_and_a_position_like_a_link() -> None:
    items = [
        {"text": "a", "supersedes": ["2", 0, "x", None, -1], "linked_memory_ids": ["1", "2"]},
        {"text": "b", "supersedes": "0"},
    ]
    first, second = read_answer(json.dumps({"memory": items}), LIMITS).items.values()
    assert (first.supersedes, first.links) == ((2, 0), (2, 0, 1))
    assert (second.supersedes, second.links) == ((), ())
