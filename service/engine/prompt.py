"""What goes into a prompt: messages as data that can forge neither a speaker nor a section, and the right date."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

from service.engine.errors import StagingMismatch
from service.records import Category, Message

_SPOKEN: Final = {"user": "user", "human": "user", "assistant": "assistant", "ai": "assistant", "model": "assistant"}
_INSTRUCTIONS: Final = frozenset({"system", "developer"})
_TOOLS: Final = frozenset({"tool", "function"})

_CATEGORIES: Final = (
    "Sort every memory into the categories of the list below: give each memory object one more field, "
    '"categories", an array of the names that fit it. Take the names from the list as they are written there and use '
    "no others; give [] when none fits."
)

_SUPERSEDES: Final = (
    "## Superseded Memories\n\n"
    'Give each memory object one more field, "supersedes": an array of the IDs of those Existing Memories that are no '
    "longer so because of it, such as a former home, employer or preference. A memory that adds to another, repeats "
    "it, or tells of another time, event or person supersedes none. Give [] when in doubt."
)

_OBSERVATION_DATE: Final = re.compile(r"^(## Observation Date\n)\d{4}-\d{2}-\d{2}$", re.MULTILINE)


def spoken(messages: Sequence[Message], *, with_tools: bool = False) -> list[Message]:
    """Return what was said, with the roles `user` and `assistant` only.

    Instructions to a model (`system`, `developer`) are dropped: they are not about anyone. Tool output is dropped too,
    as Mem0's extraction does, unless `with_tools` asks for it (an account of how a task was done needs it): then it
    counts as the user's. Unknown roles count as the user's. Empty messages are dropped.
    """
    kept = []
    for message in messages:
        role = message.role.strip().lower()
        if role in _INSTRUCTIONS or not message.content.strip() or (role in _TOOLS and not with_tools):
            continue
        kept.append(Message(role=_SPOKEN.get(role, "user"), content=message.content, name=message.name))
    return kept


def as_prompt(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return the messages in Mem0's shape, their content made safe to stand in a prompt."""
    return [{"role": message.role, "content": as_said(message)} for message in messages]


def as_said(message: Message) -> str:
    """Return what a message says as data, behind its speaker's name where it has one.

    Mem0 tells the model nothing but roles, and several people may speak as `user`: whose a fact is would be lost. The
    name is no field of its own, since providers refuse most that people have.
    """
    speaker = " ".join((message.name or "").split())
    return as_data(f"{speaker}: {message.content}" if speaker else message.content)


def as_data(content: str) -> str:
    """Indent all lines but the first, so that no line can pass for another speaker or for a heading of the prompt.

    Mem0 writes each message as `role: content` under headings that begin a line. Lone surrogates, which no provider can
    take, become question marks.
    """
    return "\n  ".join(content.encode("utf-8", "replace").decode("utf-8").splitlines())


def as_rules(instructions: str | None, categories: Sequence[Category]) -> str | None:
    """Return a tenant's instructions with its categories, as they stand at the end of the prompt; None for neither."""
    parts = [] if instructions is None else [instructions]
    if categories:
        listed = [{"name": one.name, "description": one.description or ""} for one in categories]
        parts.append(f"{_CATEGORIES}\n{json.dumps(listed, ensure_ascii=False)}")
    return "\n\n".join(parts) or None


def with_superseding(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return Mem0's messages to the model with the question which existing memories a new one supersedes."""
    return [
        {**message, "content": f"{message['content']}\n\n{_SUPERSEDES}"} if message["role"] == "system" else {**message}
        for message in messages
    ]


def with_observation_date(prompt: str, day: date) -> str:
    """Return Mem0's extraction prompt with the day on which the messages were said, in place of today.

    Raises StagingMismatch if the prompt has no such section. Custom instructions come after it, messages before it
    cannot begin a line, so the first match is Mem0's own.
    """
    dated, found = _OBSERVATION_DATE.subn(rf"\g<1>{day.isoformat()}", prompt, count=1)
    if not found:
        raise StagingMismatch(
            "Mem0's prompt has no observation date where the engine expects it; check the Mem0 version"
        )
    return dated
