"""Mem0's Memory bound to one call. The only module that imports Mem0 at its top: load it through `mem0_import`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from types import SimpleNamespace
from typing import Any, NoReturn
from uuid import UUID

from mem0.configs.prompts import PROCEDURAL_MEMORY_SYSTEM_PROMPT
from mem0.memory.main import Memory

from service.embeddings import Embedder
from service.engine.answers import AnswerLimits, read_answer, read_procedure
from service.engine.errors import EngineError, NotSupported, PipelineFailed
from service.engine.prompt import with_observation_date, with_superseding
from service.engine.provider import Provider
from service.engine.staging import StagingEmbedder, StagingHistory, StagingVectorStore, UnitOfWork, recorded


class BoundLlm:
    """The provider in Mem0's interface: sets the date in the prompt, reads the answer strictly before Mem0 does."""

    def __init__(
        self,
        unit: UnitOfWork,
        provider: Provider,
        limits: AnswerLimits,
        observed_on: date,
        deadline: float,
        categories: Collection[str] = (),
        tenant_id: UUID | None = None,
    ) -> None:
        self._unit = unit
        self._provider = provider
        self._limits = limits
        self._observed_on = observed_on
        self._deadline = deadline
        self._categories = categories
        self._tenant_id = tenant_id

    @recorded
    def generate_response(
        self, messages: list[dict[str, str]], response_format: Mapping[str, str] | None = None, **_: Any
    ) -> str:
        """Return the answer as far as it was understood, in the form that Mem0 expects."""
        self._unit.raise_failure()
        if response_format is None:
            raw = self._ask(messages, as_json=False)
            self._unit.procedure = read_procedure(raw, self._limits)
            return self._unit.procedure
        *before, last = messages
        dated = with_observation_date(last["content"], self._observed_on)
        before = with_superseding(before) if self._unit.recalled else before
        raw = self._ask([*before, {**last, "content": dated}], as_json=True)
        self._unit.answer = read_answer(raw, self._limits, self._categories)
        return self._unit.answer.as_json()

    def _ask(self, messages: list[dict[str, str]], *, as_json: bool) -> object:
        try:
            raw, self._unit.usage = self._provider.ask(
                messages, as_json=as_json, deadline=self._deadline, tenant_id=self._tenant_id
            )
        except EngineError as error:
            self._unit.asked |= error.asked
            raise
        self._unit.asked = True
        return raw


class BoundMemory(Memory):  # type: ignore[misc]  # Mem0 has no types
    """A `Memory` for one call, on staged stores.

    Mem0's constructor would open a vector store, a SQLite file and telemetry, so it is not called; the attributes are
    those that it sets. What would build or drop a store is refused.
    """

    def __init__(self, unit: UnitOfWork, llm: BoundLlm, embedder: Embedder, instructions: str | None) -> None:
        self._unit = unit
        # Images are not read: messages are text by the time they get here.
        self.config = SimpleNamespace(llm=SimpleNamespace(config={}))
        self.embedding_model = StagingEmbedder(unit, embedder)
        self.vector_store = StagingVectorStore(unit)
        self.llm = llm
        self.db = StagingHistory(unit)
        self.collection_name = None
        self.api_version = "v1.1"
        self.custom_instructions = instructions
        self.reranker = None
        self._entity_store = None

    @property
    @recorded
    def entity_store(self) -> NoReturn:
        """Refuse: Mem0's language entities are off."""
        raise NotSupported("Mem0 asked for its entity store, which is off; nothing was changed")

    @classmethod
    def from_config(cls, config_dict: dict[str, Any]) -> NoReturn:
        """Refuse: this would build stores of Mem0's own."""
        raise NotSupported("a bound Memory is made by the engine only, never from a config")

    @recorded
    def reset(self) -> NoReturn:
        """Refuse: nothing is dropped through Mem0."""
        raise NotSupported("Mem0 was asked to reset its stores, which the service never does; nothing was changed")

    def close(self) -> None:
        """Do nothing: there is nothing open, and a closed Memory would break later calls."""

    @property
    def project(self) -> NoReturn:
        """Refuse: projects are the platform's."""
        raise NotSupported("a bound Memory has no project")


def run_add(memory: BoundMemory, messages: list[dict[str, str]], *, procedural: bool) -> list[dict[str, Any]] | None:
    """Run Mem0's pipeline and return what it reports, or None if it raised; the reason is in the unit of work then.

    For a procedure Mem0 takes the instructions in place of its own prompt; here they are added to it.
    """
    how: dict[str, Any] = {}
    if procedural:
        how["memory_type"] = "procedural_memory"
        if memory.custom_instructions:
            how["prompt"] = f"{PROCEDURAL_MEMORY_SYSTEM_PROMPT}\n\n## Custom Instructions\n{memory.custom_instructions}"
    try:
        results: list[dict[str, Any]] = memory.add(messages, **memory._unit.scope, **how)["results"]
    except Exception as error:
        # Whatever Mem0 raises first passed an adapter and is recorded; this is for what it raises by itself.
        memory._unit.fail(PipelineFailed(f"Mem0's pipeline failed ({type(error).__name__})"))
        return None
    return results
