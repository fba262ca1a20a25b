"""Recall on LoCoMo: what was said becomes memories as it was said, and each question must find what answers it."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.contexts import Contexts, on_one_line
from bench.conversations import Conversation, NotLocomo, Question, Session, Turn, read_folder
from bench.serving import scratch_folder, serving

CATEGORIES: Final = {1: "multi-hop", 2: "temporal", 3: "open domain", 4: "single-hop"}
CUTS: Final = (5, 10, 20)
#: Messages in one add: under the service's own limit, and a session is rarely longer.
_MESSAGES: Final = 100


@dataclass
class Findings:
    """What a run counted: recalls by category and cut, questions left out by reason, and how long it took."""

    turns: int = 0
    recalls: dict[int, list[tuple[float, ...]]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    evidence_dropped: int = 0
    left_behind: int = 0
    add_seconds: float = 0.0
    search_seconds: list[float] = field(default_factory=list)

    def table(self) -> list[tuple[str, int, tuple[float, ...]]]:
        """Return (category, questions, mean recall at each cut), the last row over all questions."""
        rows = [(CATEGORIES[number], self.recalls[number]) for number in sorted(self.recalls)]
        rows.append(("all", [one for recalls in self.recalls.values() for one in recalls]))
        return [(name, len(found), tuple(map(fmean, zip(*found, strict=True)))) for name, found in rows if found]


class Load:
    """The memories of one conversation, held by one user of the service."""

    def __init__(self, client: Any, conversation: Conversation, user: str, *, speaker: bool, captions: bool) -> None:
        self._client = client
        self._conversation = conversation
        self._speaker = speaker
        self._captions = captions
        self.user = user
        # A turn that says the same as another of its add is the same memory.
        self._turns: dict[str, list[str]] = {}
        self.turns_by_text: dict[str, list[str]] = {}

    def add(self) -> int:
        """Add every turn and return how many there were."""
        for session in self._conversation.sessions:
            for start in range(0, len(session.turns), _MESSAGES):
                self._add(session, session.turns[start : start + _MESSAGES])
        return sum(len(session.turns) for session in self._conversation.sessions)

    def find(self, question: str, limit: int) -> list[list[str]]:
        """Return, the best hit first, the turns that each hit stands for."""
        answer = self._client.search(question, filters={"user_id": self.user}, top_k=limit, threshold=0.0)
        return [self._turns.get(hit["id"], []) for hit in answer["results"]]

    def remove(self) -> int:
        """Erase the user and return how many of its memories are still there: none, if the service did as it said."""
        self._client.delete_users(user_id=self.user)
        return int(self._client.get_all(filters={"user_id": self.user})["count"])

    def _add(self, session: Session, turns: Sequence[Turn]) -> None:
        answer = self._client.add(
            [self._message(turn) for turn in turns],
            user_id=self.user,
            infer=False,
            timestamp=int(session.moment.timestamp()),
            # One add has one metadata: it names the turns in the order of the messages.
            metadata={"session": session.number, "turns": [turn.id for turn in turns]},
        )
        results = answer["results"]
        if len(results) != len(turns):
            raise RuntimeError(f"an add of {len(turns)} messages answered {len(results)} results")
        for turn, result in zip(turns, results, strict=True):
            self._turns.setdefault(result["id"], []).append(turn.id)
            self.turns_by_text.setdefault(on_one_line(self._message(turn)["content"]), []).append(turn.id)

    def _message(self, turn: Turn) -> dict[str, str]:
        text = f"{turn.text} [picture: {turn.caption}]" if self._captions and turn.caption else turn.text
        message = {"role": "user", "content": text}
        return message | {"name": turn.speaker} if self._speaker else message


def evidence_of(question: Question, turn_ids: set[str]) -> tuple[frozenset[str], str | None]:
    """Return the turns that answer a question, or no turn and the reason why it cannot be asked."""
    if question.category not in CATEGORIES:
        return frozenset(), f"category {question.category}"
    if not question.evidence:
        return frozenset(), "unreadable evidence" if question.unreadable else "no evidence"
    known = frozenset(question.evidence) & turn_ids
    return known, None if known else "evidence names no turn of the conversation"


def recall_at(cuts: Sequence[int], evidence: frozenset[str], hits: Sequence[Sequence[str]]) -> tuple[float, ...]:
    """Return, for each cut, the share of the evidence that is among that many best hits."""
    found = [{turn for hit in hits[:cut] for turn in hit} for cut in cuts]
    return tuple(len(evidence & turns) / len(evidence) for turns in found)


def measure(
    client: Any,
    conversations: Sequence[Conversation],
    *,
    options: Mapping[str, Any],
    keep: bool,
    console: Console,
    contexts: Contexts | None = None,
) -> Findings:
    """Load the conversations, ask their questions, and remove what was made unless it is to be kept."""
    findings = Findings()
    run = uuid.uuid4().hex[:8]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for group in [conversations] if options["together"] else [[one] for one in conversations]:
            loads = [
                Load(
                    client,
                    conversation,
                    f"locomo-{run}-{conversation.id}",
                    speaker=options["speaker"],
                    captions=options["captions"],
                )
                for conversation in group
            ]
            try:
                began = time.perf_counter()
                findings.turns += sum(load.add() for load in loads)
                findings.add_seconds += time.perf_counter() - began
                for load, conversation in zip(loads, group, strict=True):
                    questions = _asked(conversation, options["limit"], findings)
                    task = progress.add_task(f"conversation {conversation.id}", total=len(questions))
                    for question, evidence in questions:
                        began = time.perf_counter()
                        hits = load.find(question.text, max(CUTS))
                        findings.search_seconds.append(time.perf_counter() - began)
                        findings.recalls.setdefault(question.category, []).append(recall_at(CUTS, evidence, hits))
                        if contexts is not None:
                            contexts.ask(load.user, question.text, evidence, load.turns_by_text)
                        progress.advance(task)
            finally:
                if not keep:
                    findings.left_behind += sum(load.remove() for load in loads)
    return findings


def _asked(conversation: Conversation, limit: int | None, findings: Findings) -> list[tuple[Question, frozenset[str]]]:
    turn_ids = conversation.turn_ids()
    asked: list[tuple[Question, frozenset[str]]] = []
    for question in conversation.questions:
        evidence, reason = evidence_of(question, turn_ids)
        if reason is None and limit is not None and len(asked) == limit:
            reason = "over --limit"
        if reason is not None:
            findings.skipped[reason] += 1
            continue
        findings.evidence_dropped += len(question.evidence) - len(evidence) + len(question.unreadable)
        asked.append((question, evidence))
    return asked


def document(findings: Findings, conversations: Sequence[Conversation], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run as one JSON document. Times are in seconds and milliseconds, recalls in [0, 1]."""
    return {
        "settings": {**options, "infer": False, "threshold": 0.0, "top_k": max(CUTS), "client": "mem0.MemoryClient"},
        "counts": {
            "conversations": len(conversations),
            "turns": findings.turns,
            "asked": len(findings.search_seconds),
            "skipped": dict(findings.skipped),
            "evidence_ids_dropped": findings.evidence_dropped,
            "left_behind": findings.left_behind,
        },
        "recall": {
            name: {"questions": count, **{f"recall@{cut}": round(one, 4) for cut, one in zip(CUTS, means, strict=True)}}
            for name, count, means in findings.table()
        },
        "times": {
            "add_seconds": round(findings.add_seconds, 2),
            "turns_per_second": round(findings.turns / findings.add_seconds, 1) if findings.add_seconds else None,
            "search_p50_ms": round(median(findings.search_seconds) * 1000, 2) if findings.search_seconds else None,
        },
    }


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print a run for a person."""
    table = Table(title="LoCoMo: recall of the turns that answer a question")
    table.add_column("category")
    for name in ("questions", *(f"recall@{cut}" for cut in CUTS)):
        table.add_column(name, justify="right")
    for name, row in result["recall"].items():
        shares = [f"{row[f'recall@{cut}']:.3f}" for cut in CUTS]
        table.add_row(name, str(row["questions"]), *shares, end_section=name == CATEGORIES[4])
    console.print(table)
    if covered := result.get("context"):
        console.print(
            f"evidence covered per {covered['tokens']} tokens: composed context {covered['composed']:.3f}, "
            f"plain top-k {covered['plain_top_k']:.3f}"
        )
    counts, times = result["counts"], result["times"]
    skipped = "; ".join(f"{reason}: {count}" for reason, count in counts["skipped"].items()) or "none"
    console.print(f"settings: {', '.join(f'{name}={value}' for name, value in result['settings'].items())}")
    console.print(
        f"{counts['conversations']} conversations, {counts['turns']} turns, {counts['asked']} questions asked"
    )
    console.print(f"questions skipped: {skipped}; evidence ids dropped: {counts['evidence_ids_dropped']}")
    if counts["left_behind"]:
        console.print(f"{counts['left_behind']} memories are still in the service")
    console.print(f"added {times['turns_per_second']} turns/s, search p50 {times['search_p50_ms']} ms")


def connect(url: str, api_key: str, home: Path) -> Any:
    """Return the official client. Its telemetry is read at import, so that the import is here."""
    os.environ["MEM0_TELEMETRY"] = "false"
    os.environ["MEM0_DIR"] = str(home)
    from mem0 import MemoryClient

    return MemoryClient(host=url, api_key=api_key)


def main(
    folder: Annotated[Path, typer.Option(help="Folder with LoCoMo's JSON files.", exists=True, file_okay=False)],
    url: Annotated[str | None, typer.Option(help="A running service. Default: one is started.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Key for --url.", envvar="MEM0_API_KEY")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")] = None,
    speaker: Annotated[bool, typer.Option(help="Say who spoke (the message's name).")] = True,
    captions: Annotated[bool, typer.Option(help="Add the captions of pictures to the texts.")] = False,
    together: Annotated[bool, typer.Option(help="Load all conversations first, each as a user of one tenant.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each conversation at most.")] = None,
    keep: Annotated[bool, typer.Option(help="Leave the memories in the service.")] = False,
    context: Annotated[bool, typer.Option(help="Measure get_user_context too, against the plain best hits.")] = True,
) -> None:
    """Measure recall@5, @10 and @20 of the turns that answer LoCoMo's questions, with verbatim memories."""
    console = Console(stderr=True)
    if url is not None and api_key is None:
        raise typer.BadParameter("--url needs --api-key")
    try:
        conversations = read_folder(folder)
    except NotLocomo as error:
        raise typer.BadParameter(str(error)) from None
    options = {"speaker": speaker, "captions": captions, "limit": limit, "together": together}
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        if url is None or api_key is None:
            console.print("starting a service")
            served = stack.enter_context(serving(scratch / "data"))
            url, api_key = served.url, served.api_key
        client = connect(url, api_key, scratch / "mem0")
        contexts = Contexts(client, url, api_key) if context else None
        findings = measure(client, conversations, options=options, keep=keep, console=console, contexts=contexts)
    result = document(findings, conversations, options)
    if contexts is not None:
        result["context"] = contexts.result()
    show(result, Console())
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
