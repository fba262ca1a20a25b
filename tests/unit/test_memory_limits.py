"""The bounds of texts, names and categories: what is over one is refused before it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.errors import InvalidInput, TooLarge
from service.memories.limits import check_categories, check_characters, check_names, check_new, check_query, check_text
from service.records import Message, NewMemories, SubjectNames
from service.settings import Limits

pytestmark = pytest.mark.unit

LIMITS = Limits()


class Unread(str):
    """A text whose length may be asked for and nothing else."""

    def encode(self, *_: Any, **__: Any) -> bytes:
        raise AssertionError("the text was read")

    def strip(self, *_: Any) -> str:
        raise AssertionError("the text was read")

    def __contains__(self, _: object) -> bool:
        raise AssertionError("the text was read")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the text was read")


def new(name: str | None = None) -> NewMemories:
    """An add of one message by this speaker."""
    return NewMemories([Message("user", "tea", name)], SubjectNames(user_id="alice"))


@pytest.mark.parametrize(
    ("check", "most"),
    [
        (lambda text: check_text(text, LIMITS, "text"), LIMITS.message_chars),
        (lambda text: check_query(text, LIMITS), LIMITS.query_chars),
        (lambda text: check_names(SubjectNames(user_id=text)), 255),
        (lambda text: check_new(new(text), LIMITS), 255),
        (lambda text: check_categories([text]), 100),
    ],
    ids=["a text", "a query", "a name", "a speaker", "a category"],
)
def test_what_is_too_long_is_not_read(check: Callable[[str], None], most: int) -> None:
    check("x" * most)
    with pytest.raises((InvalidInput, TooLarge), match=str(most)):
        check(Unread("x" * (most + 1)))


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00" * 3, "a\x00"])
def test_what_cannot_be_stored_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"surrogate|null byte"):
        check_characters(text, "text")


@pytest.mark.parametrize("text", ["", "tea", "ключ 🍵", "\ud7ff\ue000\U0010ffff"])
def test_all_other_characters_are_text(text: str) -> None:
    check_characters(text, "text")
