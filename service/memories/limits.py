"""Bounds on what one add, update or query may carry. Lengths come first, so that nothing over them is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.errors import InvalidInput, TooLarge
from service.records import NewMemories, SubjectNames
from service.settings import Limits

_NAME_CHARS: Final = 255
_CATEGORIES: Final = 50
_CATEGORY_CHARS: Final = 100


def check_text(text: str, limits: Limits, where: str) -> None:
    """Raise InvalidInput for an empty text, TooLarge for one over the limit."""
    if len(text) > limits.message_chars:
        raise TooLarge(f"{where}: has more than {limits.message_chars} characters (limits.message_chars)")
    check_characters(text, where)
    if not text.strip():
        raise InvalidInput(f"{where}: must not be empty")


def check_query(text: str, limits: Limits) -> None:
    """Raise InvalidInput for a query that is empty, over the limit or no text. To be asked before it is read."""
    if len(text) > limits.query_chars:
        raise InvalidInput(f"query: must have {limits.query_chars} characters at most")
    check_characters(text, "query")
    if not text.strip():
        raise InvalidInput("query: must not be empty")


def check_characters(text: str, where: str) -> None:
    """Raise InvalidInput for what Postgres and UTF-8 cannot hold: a null byte or a lone surrogate."""
    if "\x00" in text:
        raise InvalidInput(f"{where}: holds a null byte")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{where}: holds a lone surrogate, which is not valid Unicode text") from None


def check_names(names: SubjectNames) -> None:
    """Raise InvalidInput for an id that is empty, too long, `*`, or holds characters that cannot be stored."""
    for kind, name in names.items():
        where = f"{kind.value}_id"
        if len(name) > _NAME_CHARS:
            raise InvalidInput(f"{where}: must have {_NAME_CHARS} characters at most")
        check_characters(name, where)
        if not name.strip():
            raise InvalidInput(f"{where}: must not be empty")
        if name == "*":
            raise InvalidInput(f"{where}: '*' stands for 'is set' in filters and cannot be an id")


def check_new(new: NewMemories, limits: Limits) -> None:
    """Raise InvalidInput or TooLarge for the first thing in an add that breaks a limit."""
    if not new.subjects:
        raise InvalidInput("name whose memory it is: user_id, agent_id, app_id or run_id")
    check_names(new.subjects)
    if not new.messages:
        raise InvalidInput("messages: must not be empty")
    if len(new.messages) > limits.messages:
        raise TooLarge(f"messages: more than {limits.messages} in one add (limits.messages)")
    for number, message in enumerate(new.messages):
        where = f"messages[{number}].content"
        if message.role == "system":
            # Nothing is remembered of it, so it may be as long as the prompts of agents are, or empty.
            check_characters(message.content, where)
        else:
            check_text(message.content, limits, where)
        if message.name is not None:
            if len(message.name) > _NAME_CHARS:
                raise InvalidInput(f"messages[{number}].name: must have {_NAME_CHARS} characters at most")
            check_characters(message.name, f"messages[{number}].name")
    check_categories(new.categories)


def check_categories(categories: Sequence[str]) -> None:
    """Raise InvalidInput for too many categories, or one that is empty or too long."""
    if len(categories) > _CATEGORIES:
        raise InvalidInput(f"categories: {_CATEGORIES} at most")
    for number, category in enumerate(categories):
        if not category or len(category) > _CATEGORY_CHARS:
            raise InvalidInput(f"categories[{number}]: must have 1 to {_CATEGORY_CHARS} characters")
        check_characters(category, f"categories[{number}]")
