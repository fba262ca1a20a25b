"""Reads an LLM's raw extraction answer strictly: Mem0 takes what it cannot read for "nothing to remember"."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from service.engine.errors import LlmAnswerMalformed, LlmAnswerUnparsable

_THOUGHT: Final = "<think>"
_THOUGHT_END: Final = "</think>"
_FENCE: Final = re.compile(r"^```[a-zA-Z0-9]*\n([\s\S]*?)\n```$")
#: Thoughts and fences of an answer that are inside each other, at most: each costs a look through all of it.
_LAYERS: Final = 20
_SPEAKERS: Final = frozenset({"user", "assistant"})


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How much one answer may hold. Lengths are in characters."""

    items: int = 100
    links: int = 50
    text: int = 2_000
    procedure: int = 20_000
    raw: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Item:
    """One extracted memory. `links` are positions in the list of existing memories that the prompt showed.

    So are `supersedes`, those of the links whose memories are no longer so.
    """

    text: str
    attributed_to: str | None
    links: tuple[int, ...]
    categories: tuple[str, ...] = ()
    supersedes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The usable items of an answer, by their text, and why the others were dropped."""

    items: Mapping[str, Item]
    offered: int
    dropped: Mapping[str, int]

    def as_json(self) -> str:
        """Return the answer as Mem0 reads it: only what was understood.

        Mem0 cuts `<think>` blocks out of an answer, inside of strings as well; escaping keeps texts whole.
        """
        items = [{"text": item.text, "attributed_to": item.attributed_to} for item in self.items.values()]
        return json.dumps({"memory": items}).replace("<", "\\u003c")


def read_answer(raw: object, limits: AnswerLimits, categories: Collection[str] = ()) -> Answer:
    """Return what the LLM offers to remember. Of the categories that it names, only those in `categories` are kept.

    Whatever else an item has (whose memory it is, an id, a date) is ignored: the call says that, not the answer. Odd
    items are dropped and counted. Raises LlmAnswerUnparsable if there is no answer or it is not JSON, and
    LlmAnswerMalformed if it is too large, if it has no list `memory`, or if none of the items in it can be used.
    """
    offered = _offered(document_of(text_of(raw, limits)))
    dropped: Counter[str] = Counter()
    items: dict[str, Item] = {}
    allowed = {name.casefold(): name for name in categories}
    for entry in offered:
        item = _item(entry, limits, allowed, dropped)
        if item is None:
            continue
        if item.text in items:
            dropped["duplicate"] += 1
        elif len(items) >= limits.items:
            dropped["too_many"] += 1
        else:
            items[item.text] = item
    if offered and not items:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(dropped.items()))
        raise LlmAnswerMalformed(f"none of the LLM's {len(offered)} items can be used ({reasons})")
    return Answer(items=items, offered=len(offered), dropped=dict(dropped))


def read_procedure(raw: object, limits: AnswerLimits) -> str:
    """Return the account of a procedure, without thoughts and fences. Raises like `read_answer`."""
    text = text_of(raw, limits)
    for _ in range(_LAYERS):  # until Mem0, which takes the same away, has nothing left to take
        before = text
        fenced = _FENCE.match(text.strip())
        text = _without_thoughts(fenced.group(1) if fenced else text).strip()
        if text == before:
            break
    else:
        raise LlmAnswerMalformed(f"the LLM's answer has more than {_LAYERS} thoughts and fences inside each other")
    if not text:
        raise LlmAnswerUnparsable("the LLM's answer is empty")
    if len(text) > limits.procedure:
        raise LlmAnswerMalformed(f"the LLM's answer has {len(text)} characters, over the limit of {limits.procedure}")
    if not _storable(text):
        raise LlmAnswerMalformed("the LLM's answer holds characters that are not text")
    return text


def text_of(raw: object, limits: AnswerLimits) -> str:
    """Return the text of an answer, which some providers give in blocks. Raises like `read_answer`."""
    if isinstance(raw, list):
        parts = [block.get("text") if isinstance(block, dict) else block for block in raw]
        raw = "".join(part for part in parts if isinstance(part, str))
    if raw is None or raw == "":
        raise LlmAnswerUnparsable("the LLM's answer is empty")
    if not isinstance(raw, str):
        raise LlmAnswerMalformed("the LLM's answer is not text")
    if len(raw) > limits.raw:
        raise LlmAnswerMalformed(f"the LLM's answer has {len(raw)} characters, over the limit of {limits.raw}")
    return raw


def document_of(text: str) -> Any:
    """Parse the answer, or the object inside of it where the model wrote something around it.

    Raises LlmAnswerUnparsable when there is none.
    """
    text = _without_thoughts(text).strip()
    if not text:
        raise LlmAnswerUnparsable("the LLM's answer is empty")
    begin, end = text.find("{"), text.rfind("}")
    for candidate in (text, text[begin : end + 1] if 0 <= begin < end else ""):
        try:
            return json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
    # Raised outside of the handler: the parser's error would carry the whole document.
    raise LlmAnswerUnparsable("the LLM's answer is not JSON")


def read_object(raw: object, limits: AnswerLimits) -> dict[str, Any]:
    """Return the JSON object that was asked for, whatever is in it. Raises like `read_answer`."""
    found = document_of(text_of(raw, limits))
    if not isinstance(found, dict):
        raise LlmAnswerMalformed(f"the LLM's answer is a JSON {_kind(found)} where a JSON object is asked for")
    if not _can_be_written(found):
        raise LlmAnswerMalformed("the LLM's answer holds numbers, characters or a depth that JSON cannot pass on")
    return found


def _can_be_written(document: dict[str, Any]) -> bool:
    """Tell whether answers, which are written with less than Python reads, can hold a document."""
    try:
        orjson.dumps(document)
    except TypeError:
        return False
    return True


def _without_thoughts(text: str) -> str:
    """Return a text without its `<think>` blocks, as Mem0 takes them away.

    Not by a pattern, which looks through the rest of the text once for each block that nothing closes.
    """
    kept, at = [], 0
    while (begin := text.find(_THOUGHT, at)) >= 0:
        end = text.find(_THOUGHT_END, begin + len(_THOUGHT))
        if end < 0:
            break
        kept.append(text[at:begin])
        at = end + len(_THOUGHT_END)
    return "".join([*kept, text[at:]])


def _offered(document: Any) -> list[Any]:
    if not isinstance(document, dict):
        raise LlmAnswerMalformed(f"the LLM's answer is a JSON {_kind(document)} where an object is asked for")
    if "memory" not in document:
        raise LlmAnswerMalformed("the LLM's answer has no field 'memory'")
    offered = document["memory"]
    if not isinstance(offered, list):
        raise LlmAnswerMalformed(f"the field 'memory' of the LLM's answer is a JSON {_kind(offered)}, not a list")
    return offered


def _item(entry: Any, limits: AnswerLimits, categories: Mapping[str, str], dropped: Counter[str]) -> Item | None:
    text = entry.get("text") if isinstance(entry, dict) else None
    if not isinstance(text, str):
        dropped["malformed"] += 1
        return None
    text = text.strip()
    reason = (
        "empty" if not text else "too_long" if len(text) > limits.text else "malformed" if not _storable(text) else None
    )
    if reason:
        dropped[reason] += 1
        return None
    speaker = entry.get("attributed_to")
    speaker = speaker.strip().lower() if isinstance(speaker, str) else None
    supersedes = _links(entry.get("supersedes"), limits)
    links = (*supersedes, *_links(entry.get("linked_memory_ids"), limits))
    return Item(
        text,
        speaker if speaker in _SPEAKERS else None,
        tuple(dict.fromkeys(links))[: limits.links],
        _categories(entry.get("categories"), categories),
        supersedes,
    )


def _links(value: Any, limits: AnswerLimits) -> tuple[int, ...]:
    """Return the positions that the model named; anything else (an id that it made up, say) is ignored."""
    if not isinstance(value, list):
        return ()
    named = (str(link) for link in value if isinstance(link, str | int) and not isinstance(link, bool))
    known = dict.fromkeys(int(link) for link in named if link.isascii() and link.isdigit() and len(link) < 4)
    return tuple(known)[: limits.links]


def _categories(value: Any, allowed: Mapping[str, str]) -> tuple[str, ...]:
    """Return those of the named categories that there are, spelled as the tenant spells them."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return ()
    named = (allowed.get(one.strip().casefold()) for one in value if isinstance(one, str))
    return tuple(dict.fromkeys(name for name in named if name is not None))


def _storable(text: str) -> bool:
    """Whether the text has a UTF-8 form and no NUL."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def _kind(value: Any) -> str:
    return {list: "array", str: "string", dict: "object", bool: "boolean", type(None): "null"}.get(
        type(value), "number"
    )
