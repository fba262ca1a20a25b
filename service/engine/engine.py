"""The engine: Mem0 built once in the background, bound anew for each call, and not believed without a count."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple
from uuid import UUID

from service import clock
from service.embeddings import Embedder
from service.engine.answers import Answer, AnswerLimits, read_object
from service.engine.change import change_prompt, read_changes
from service.engine.errors import EngineError, EngineFailed, EngineStarting, StagingMismatch
from service.engine.mem0_import import ENTITIES_OFF, import_mem0
from service.engine.prompt import as_prompt, as_rules, spoken
from service.engine.provider import Provider
from service.engine.shapes import Counts, Draft, Extraction, LlmSettings, Reader, TokenUsage
from service.engine.staging import UnitOfWork, reader_ids
from service.engine.summary import read_summary, summary_prompt
from service.errors import ExtractionUnavailable, InvalidInput, ScopeRequired
from service.records import Category, Message, SubjectNames

State = Literal["starting", "ok", "off", "failed"]

_OFF = "no LLM is configured; set llm.provider and llm.config to extract memories"

_log = logging.getLogger(__name__)


class _Loaded(NamedTuple):
    """What loading gives: the module that knows Mem0, and the provider."""

    bound: ModuleType
    provider: Provider


class Engine:
    """Extracts memories from messages. Safe to call from many threads; calls share nothing but the LLM's client.

    `home` is a folder inside the data folder for the config file that Mem0 writes at import; nothing else gets there.
    Without `llm` the engine is off and Mem0 is never imported. Without `embedder` each extraction brings its own.
    """

    def __init__(
        self, llm: LlmSettings | None, embedder: Embedder | None, *, home: Path, limits: AnswerLimits | None = None
    ) -> None:
        self._settings = llm
        self._embedder = embedder
        self._home = home
        self._limits = limits or AnswerLimits()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._finished = threading.Event()
        self._loaded: _Loaded | None = None
        self._failure: str | None = None

    def start_loading(self) -> None:
        """Begin to import Mem0 and to build the LLM's client in the background (some 4 s); later calls do nothing."""
        with self._lock:
            if self._settings is None or self._thread is not None:
                return
            self._thread = threading.Thread(target=self._load, args=(self._settings,), name="engine-load", daemon=True)
            self._thread.start()

    def state(self) -> tuple[State, str | None]:
        """Return the state and, unless it is `ok`, the reason; for `/readyz`."""
        if self._settings is None:
            return "off", _OFF
        if self._failure is not None:
            return "failed", self._failure
        return ("ok", None) if self._loaded is not None else ("starting", "Mem0 is being imported")

    def trouble(self) -> str | None:
        """Return what was wrong with the last call of the LLM; None when it was answered, or none was made."""
        return None if self._loaded is None else self._loaded.provider.trouble

    def features(self) -> Mapping[str, tuple[State, str | None]]:
        """Return the state of each part of Mem0 that can be off by itself; for `/readyz`."""
        return {"entities": ("off", ENTITIES_OFF)}

    def extract(
        self,
        messages: Sequence[Message],
        subjects: SubjectNames,
        *,
        reader: Reader,
        instructions: str | None = None,
        categories: Sequence[Category] = (),
        occurred_at: datetime | None = None,
        procedural: bool = False,
        wait: float = 60.0,
        tenant_id: UUID | None = None,
        embedder: Embedder | None = None,
    ) -> Extraction:
        """Return what Mem0 would remember of the messages. Writes nothing; takes at most about `wait` seconds.

        `instructions` and `categories` are the tenant's; a procedure is not sorted into categories. `occurred_at` is
        when the messages were said (now, if None). `procedural` asks for one account of how a task was done and needs
        an agent. `tenant_id` is whose use of the LLM it is. `embedder` makes the vectors (the engine's own, if None).

        Raises ExtractionUnavailable if the engine is off, InvalidInput for a call that cannot be made, StoreAway while
        what the reader reads from or the embedder is away, else another EngineError; then there is nothing to store.
        """
        deadline = clock.monotonic() + wait
        _check(subjects, procedural)
        own = embedder or self._embedder
        if own is None:
            raise ValueError("this engine was built without an embedder")
        loaded = self._wait_until_loaded(wait)
        kept = spoken(messages, with_tools=procedural)
        if not kept:
            return Extraction(drafts=(), messages=(), counts=Counts(offered=0, staged=0))
        unit = UnitOfWork(subjects, reader)
        sorted_into = () if procedural else categories
        names = [category.name for category in sorted_into]
        day = _day(occurred_at)
        llm = loaded.bound.BoundLlm(unit, loaded.provider, self._limits, day, deadline, names, tenant_id)
        memory = loaded.bound.BoundMemory(unit, llm, own, as_rules(instructions, sorted_into))
        reported = loaded.bound.run_add(memory, as_prompt(kept), procedural=procedural)
        unit.raise_failure()
        try:
            drafts = _settled(unit, reported or [])
            if procedural:
                return Extraction(drafts, (), Counts(offered=1, staged=len(drafts)), unit.usage)
            if len(unit.messages) != len(kept):
                raise StagingMismatch("Mem0 did not keep the messages of the call")
        except EngineError as error:
            unit.told(error)
            raise
        return Extraction(drafts, tuple(kept), _counts(unit, drafts), unit.usage)

    def arrange(
        self, instructions: str, content: str, *, wait: float = 60.0, tenant_id: UUID | None = None
    ) -> tuple[Mapping[str, Any], TokenUsage | None]:
        """Return the JSON object that the LLM makes of a content by our instructions; takes about `wait` seconds.

        Raises:
            ExtractionUnavailable: when the engine is off.
            EngineError: when the LLM does not answer, or answers with anything else.
        """
        deadline = clock.monotonic() + wait
        loaded = self._wait_until_loaded(wait)
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": content}]
        raw, usage = loaded.provider.ask(messages, as_json=True, deadline=deadline, tenant_id=tenant_id)
        try:
            return read_object(raw, self._limits), usage
        except EngineError as error:
            error.asked, error.usage = True, usage
            raise

    def summarise(
        self, memories: Sequence[tuple[date, str]], *, wait: float = 60.0, tenant_id: UUID | None = None
    ) -> tuple[str, TokenUsage | None]:
        """Return what memories (day and text, the oldest first) say together. It takes at most about `wait` seconds.

        Raises ExtractionUnavailable if the engine is off, else an EngineError.
        """
        deadline = clock.monotonic() + wait
        loaded = self._wait_until_loaded(wait)
        prompt = summary_prompt(memories)
        raw, usage = loaded.provider.ask(prompt, as_json=False, deadline=deadline, tenant_id=tenant_id)
        try:
            return read_summary(raw, self._limits), usage
        except EngineError as error:
            error.asked, error.usage = True, usage
            raise

    def find_changes(
        self, memories: Sequence[tuple[date, str]], *, wait: float = 60.0, tenant_id: UUID | None = None
    ) -> tuple[list[tuple[int, int]], TokenUsage | None]:
        """Return which of the memories (day and text, the oldest first) a later one makes untrue: newer, older.

        They are told by their places in the list. It takes at most about `wait` seconds. Raises ExtractionUnavailable
        if the engine is off, else an EngineError, also for an answer that is amiss anywhere.
        """
        deadline = clock.monotonic() + wait
        loaded = self._wait_until_loaded(wait)
        raw, usage = loaded.provider.ask(change_prompt(memories), as_json=True, deadline=deadline, tenant_id=tenant_id)
        try:
            return read_changes(raw, len(memories), self._limits), usage
        except EngineError as error:
            error.asked, error.usage = True, usage
            raise

    def _wait_until_loaded(self, wait: float) -> _Loaded:
        if self._settings is None:
            raise ExtractionUnavailable(_OFF)
        self.start_loading()
        if not self._finished.wait(timeout=wait):
            raise EngineStarting("the engine is still being loaded; try again in a few seconds", retry_after=2)
        if self._loaded is None:
            raise EngineFailed(f"the engine could not be built: {self._failure}")
        return self._loaded

    def _load(self, settings: LlmSettings) -> None:
        try:
            import_mem0(self._home)
            from service.engine import bound  # it imports Mem0, which must not happen before

            self._loaded = _Loaded(bound, Provider(settings))
        except EngineFailed as error:
            self._failure = error.detail
        except Exception as error:
            self._failure = f"Mem0 could not be imported ({type(error).__name__})"
        finally:
            self._finished.set()
        if self._failure is not None:
            _log.error("the engine failed to load: %s", self._failure)


def _check(subjects: SubjectNames, procedural: bool) -> None:
    if not subjects:
        raise ScopeRequired("name a user, an agent, an app or a run to extract memories for")
    if procedural and subjects.agent_id is None:
        raise InvalidInput("a procedural memory belongs to an agent; name one in agent_id")


def _day(occurred_at: datetime | None) -> date:
    return occurred_at.astimezone(UTC).date() if occurred_at is not None else clock.today()


def _settled(unit: UnitOfWork, reported: Sequence[Mapping[str, Any]]) -> tuple[Draft, ...]:
    """Return the staged memories, after checking that Mem0 reported exactly these, with these texts, as added."""
    staged = {row.id: row.payload.get("data") for row in unit.rows.values()}
    if {entry["id"]: entry["memory"] for entry in reported} != staged or len(reported) != len(staged):
        raise StagingMismatch(f"Mem0 reported {len(reported)} memories and staged {len(staged)}, or not the same ones")
    if {entry["memory_id"]: entry["new_memory"] for entry in unit.history} != staged or len(unit.history) != len(
        staged
    ):
        raise StagingMismatch(f"Mem0 staged {len(staged)} memories and {len(unit.history)} history entries for them")
    if any(entry["event"] != "ADD" for entry in (*reported, *unit.history)):
        raise StagingMismatch("Mem0 reported another change than an addition")
    items = unit.answer.items if unit.answer else {}
    expected = set(items) if unit.procedure is None else {unit.procedure}
    if set(staged.values()) != expected:
        raise StagingMismatch("Mem0 staged other texts than the LLM offered, or dropped one")
    drafts = []
    for row in unit.rows.values():
        text, item = row.payload["data"], items.get(row.payload["data"])
        if row.vector is None:
            raise StagingMismatch("Mem0 staged a memory without a vector")
        drafts.append(
            Draft(
                # Mem0's random id ends here: the record's ids are ordered by time.
                id=clock.new_id(),
                text=text,
                vector=row.vector,
                attributed_to=item.attributed_to if item else None,
                linked_memory_ids=reader_ids(unit.recalled, item.links) if item else (),
                categories=item.categories if item else (),
                superseded_ids=reader_ids(unit.recalled, item.supersedes) if item else (),
            )
        )
    return tuple(drafts)


def _counts(unit: UnitOfWork, drafts: Sequence[Draft]) -> Counts:
    answer = unit.answer or Answer(items={}, offered=0, dropped={})
    return Counts(offered=answer.offered, staged=len(drafts), dropped=dict(answer.dropped))
