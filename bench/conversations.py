"""Reads LoCoMo conversations: the published file (`locomo10.json`) and one file for each conversation.

LoCoMo (https://github.com/snap-research/locomo) is CC BY-NC 4.0: it is measured with and is no part of this project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

#: Ids are written `D8:6`; some of the published ones `D:8:6`, `D8:06`, or several in one text (`D8:6; D9:17`).
_TURN_ID: Final = re.compile(r"D:?\s*(\d+)\s*:\s*(\d+)")
_DATE: Final = "%I:%M %p on %d %B, %Y"


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing that was said. `caption` describes the picture that was sent with it."""

    id: str
    speaker: str
    text: str
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """The turns of one sitting and when it was, taken as UTC."""

    number: int
    moment: datetime
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the ids of the turns that answer it; a text among them that is no id is in `unreadable`."""

    text: str
    category: int
    evidence: tuple[str, ...]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """Two people's sessions and the questions about them."""

    id: str
    sessions: tuple[Session, ...]
    questions: tuple[Question, ...]

    def turn_ids(self) -> set[str]:
        """Return the ids of all turns."""
        return {turn.id for session in self.sessions for turn in session.turns}


class NotLocomo(ValueError):
    """A file is not in one of LoCoMo's two forms."""


def read_folder(folder: Path) -> list[Conversation]:
    """Return the conversations of all `*.json` files of a folder, by name of the file.

    Raises:
        NotLocomo: when there is none, or a file is something else.
    """
    conversations: list[Conversation] = []
    for file in sorted(folder.glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            conversations += [_read(one) for one in (content if isinstance(content, list) else [content])]
        except (KeyError, TypeError, ValueError) as error:
            raise NotLocomo(f"{file.name}: is not a LoCoMo file ({type(error).__name__}: {error})") from error
    if not conversations:
        raise NotLocomo(f"{folder}: holds no *.json file; get locomo10.json from the LoCoMo repository")
    return conversations


def turn_ids_in(text: str) -> list[str]:
    """Return every turn id in a text, each in its one normal spelling."""
    return [f"D{int(session)}:{int(turn)}" for session, turn in _TURN_ID.findall(text)]


def _read(content: Mapping[str, Any]) -> Conversation:
    if "sessions" in content:
        sessions = [_session(one["n"], one["date_time"], one["turns"]) for one in content["sessions"]]
        name, questions = content["id"], content["questions"]
    else:
        said = content["conversation"]
        numbers = sorted(int(key.removeprefix("session_")) for key in said if re.fullmatch(r"session_\d+", key))
        sessions = [_session(one, said[f"session_{one}_date_time"], said[f"session_{one}"]) for one in numbers]
        name, questions = content["sample_id"], content["qa"]
    return Conversation(str(name), tuple(sessions), tuple(map(_question, questions)))


def _session(number: int, date_time: str, turns: Iterable[Mapping[str, Any]]) -> Session:
    moment = datetime.strptime(date_time.strip(), _DATE).replace(tzinfo=UTC)
    return Session(int(number), moment, tuple(map(_turn, turns)))


def _turn(content: Mapping[str, Any]) -> Turn:
    (name,) = turn_ids_in(content["id"] if "id" in content else content["dia_id"])
    caption = content.get("image_caption") or content.get("blip_caption")
    return Turn(name, content["speaker"], content["text"], caption)


def _question(content: Mapping[str, Any]) -> Question:
    written = [str(one) for one in content.get("evidence") or ()]
    ids = dict.fromkeys(found for one in written for found in turn_ids_in(one))
    unreadable = tuple(one for one in written if not turn_ids_in(one))
    return Question(str(content["question"]), int(content["category"]), tuple(ids), unreadable)
