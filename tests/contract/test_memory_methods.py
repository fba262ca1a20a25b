"""What each public method of Mem0's `Memory` does on a bound instance: it works on staged data, or it is refused whole.

Nothing here writes anywhere: what worked is in the unit of work, what was refused left it unchanged and failed.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from service.clock import monotonic
from service.embeddings import Embedder
from service.engine import LlmSettings, NotSupported, StagingMismatch
from service.engine.answers import AnswerLimits
from service.engine.mem0_import import import_mem0
from service.engine.provider import Provider
from service.engine.staging import UnitOfWork
from service.records import Message, SubjectNames
from tests.llm.fixtures import Shelf
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

TALK = [{"role": "user", "content": "I like tea"}, {"role": "assistant", "content": "Noted"}]


@dataclass
class Bound:
    """A bound memory and what it stages into."""

    memory: Any
    unit: UnitOfWork
    shelf: Shelf

    @property
    def scope(self) -> dict[str, str]:
        return self.unit.scope

    def staged(self) -> tuple[list[str], list[tuple[str, str]], list[str]]:
        """The texts, the (event, text) of the history and the messages that are staged."""
        return (
            [row.payload["data"] for row in self.unit.rows.values()],
            [(entry["event"], entry["new_memory"]) for entry in self.unit.history],
            [str(message["content"]) for message in self.unit.messages],
        )

    def add(self, *texts: str) -> list[str]:
        """Stage memories word for word and return their ids."""
        messages = [{"role": "user", "content": text} for text in texts]
        return [entry["id"] for entry in self.memory.add(messages, infer=False, **self.scope)["results"]]


Binder = Callable[[SubjectNames], Bound]


@pytest.fixture
def bind(llm: ScriptedLLM, embedder: Embedder, tmp_path: Path) -> Binder:
    """Bind a memory as the engine does, to subjects and a shelf with one older memory."""
    import_mem0(tmp_path / "mem0")
    bound = import_module("service.engine.bound")
    provider = Provider(LlmSettings("openai", llm.config))

    def make(subjects: SubjectNames) -> Bound:
        shelf = Shelf.of("Alice has a cat", messages=[Message("user", "Good morning")])
        unit = UnitOfWork(subjects, shelf)
        scoped = bound.BoundLlm(unit, provider, AnswerLimits(), date(2026, 1, 2), monotonic() + 30)
        return Bound(bound.BoundMemory(unit, scoped, embedder, None), unit, shelf)

    return make


@pytest.fixture
def user(bind: Binder) -> Bound:
    """A memory that is bound to a user."""
    return bind(SubjectNames(user_id="alice"))


def refused(bound: Bound, call: Callable[[], object], kind: type[Exception] = NotSupported) -> None:
    """The call raises, stages nothing, and its refusal is recorded for the end of the unit of work."""
    before = copy.deepcopy(bound.staged())
    with pytest.raises(kind):
        call()
    assert bound.staged() == before
    assert isinstance(bound.unit.failure, StagingMismatch)


def harmless(bound: Bound, call: Callable[[], object], kind: type[Exception]) -> None:
    """Mem0 itself refuses the call before any store is asked."""
    before = copy.deepcopy(bound.staged())
    with pytest.raises(kind):
        call()
    assert bound.staged() == before
    assert bound.unit.failure is None


# --- add ------------------------------------------------------------------------------------------------------------


def test_add_with_inference_stages_memories_history_and_messages(user: Bound, llm: ScriptedLLM) -> None:
    llm.facts("Alice likes tea", "Alice is polite")
    results = user.memory.add(TALK, **user.scope)["results"]
    assert [(entry["memory"], entry["event"]) for entry in results] == [
        ("Alice likes tea", "ADD"),
        ("Alice is polite", "ADD"),
    ]
    assert [entry["id"] for entry in results] == list(user.unit.rows)
    assert user.staged() == (
        ["Alice likes tea", "Alice is polite"],
        [("ADD", "Alice likes tea"), ("ADD", "Alice is polite")],
        ["I like tea", "Noted"],
    )
    assert user.unit.failure is None


def test_add_without_inference_stages_the_messages_as_memories(user: Bound, llm: ScriptedLLM) -> None:
    user.memory.add(TALK, infer=False, **user.scope)
    assert user.staged() == (["I like tea", "Noted"], [("ADD", "I like tea"), ("ADD", "Noted")], [])
    assert llm.requests == []


def test_add_of_a_procedure_stages_one_memory(bind: Binder, llm: ScriptedLLM) -> None:
    agent = bind(SubjectNames(agent_id="cook"))
    llm.answer("Boil, pour, wait.")
    agent.memory.add(TALK, memory_type="procedural_memory", **agent.scope)
    assert agent.staged() == (["Boil, pour, wait."], [("ADD", "Boil, pour, wait.")], [])


def test_add_for_another_scope_is_refused(user: Bound) -> None:
    refused(user, lambda: user.memory.add("x", user_id="bob"), StagingMismatch)


def test_add_without_inference_for_another_scope_is_refused(user: Bound) -> None:
    refused(user, lambda: user.memory.add("x", user_id="bob", infer=False), StagingMismatch)


def test_add_for_a_wider_scope_is_refused(bind: Binder) -> None:
    narrow = bind(SubjectNames(user_id="alice", run_id="r"))
    refused(narrow, lambda: narrow.memory.add("x", user_id=narrow.unit.word), StagingMismatch)


def test_add_without_a_scope_is_refused_by_mem0(user: Bound) -> None:
    harmless(user, lambda: user.memory.add("x"), Exception)


def test_add_with_a_platform_parameter_is_refused_by_mem0(user: Bound) -> None:
    harmless(user, lambda: user.memory.add("x", timestamp=1, **user.scope), ValueError)


# --- reads ----------------------------------------------------------------------------------------------------------


def test_search_finds_what_exists_and_what_is_staged(user: Bound) -> None:
    user.add("Alice drinks tea every morning", "The train leaves at nine")
    found = user.memory.search("What does Alice drink?", filters=user.scope, threshold=0.0)["results"]
    texts = [entry["memory"] for entry in found]
    assert set(texts) == {"Alice has a cat", "Alice drinks tea every morning", "The train leaves at nine"}
    assert texts.index("Alice drinks tea every morning") < texts.index("The train leaves at nine")


@pytest.mark.parametrize(
    "filters",
    [
        {"user_id": "bob"},
        {"user_id": "*"},
        {"user_id": "WORD", "AND": [{"user_id": "bob"}]},
        {"user_id": "WORD", "OR": [{"user_id": "bob"}, {"user_id": "carol"}]},
        {"user_id": "WORD", "agent_id": "a"},
        {"run_id": "WORD"},
    ],
)
def test_search_cannot_be_widened(user: Bound, filters: dict[str, Any]) -> None:
    own = {key: user.unit.word if value == "WORD" else value for key, value in filters.items()}
    refused(user, lambda: user.memory.search("cat", filters=own), StagingMismatch)
    assert user.shelf.asked == []


def test_get_returns_a_staged_memory_and_no_other(user: Bound) -> None:
    (memory_id,) = user.add("I like tea")
    assert user.memory.get(memory_id)["memory"] == "I like tea"
    assert user.memory.get(str(user.shelf.ids[0])) is None, "it was not shown to this call"
    user.memory.search("cat", filters=user.scope)
    assert user.memory.get(str(user.shelf.ids[0]))["memory"] == "Alice has a cat"


def test_get_all_is_refused(user: Bound) -> None:
    user.add("I like tea")
    refused(user, lambda: user.memory.get_all(filters=user.scope))


def test_history_returns_what_is_staged(user: Bound) -> None:
    (memory_id,) = user.add("I like tea")
    assert [(e["event"], e["old_memory"], e["new_memory"]) for e in user.memory.history(memory_id)] == [
        ("ADD", None, "I like tea")
    ]
    assert user.memory.history(str(user.shelf.ids[0])) == []


# --- changes --------------------------------------------------------------------------------------------------------


def test_update_of_a_staged_memory_is_refused(user: Bound) -> None:
    (memory_id,) = user.add("I like tea")
    refused(user, lambda: user.memory.update(memory_id, text="I like coffee"))


def test_update_of_another_memory_finds_nothing(user: Bound) -> None:
    harmless(user, lambda: user.memory.update(str(user.shelf.ids[0]), text="x"), ValueError)


def test_delete_of_a_staged_memory_is_refused(user: Bound) -> None:
    (memory_id,) = user.add("I like tea")
    refused(user, lambda: user.memory.delete(memory_id))


def test_delete_of_another_memory_finds_nothing(user: Bound) -> None:
    harmless(user, lambda: user.memory.delete(str(user.shelf.ids[0])), ValueError)


def test_delete_all_is_refused(user: Bound) -> None:
    user.add("I like tea")
    refused(user, lambda: user.memory.delete_all(**user.scope))


def test_reset_is_refused(user: Bound) -> None:
    user.add("I like tea")
    refused(user, user.memory.reset)


# --- the rest -------------------------------------------------------------------------------------------------------


def test_close_does_nothing(user: Bound) -> None:
    (memory_id,) = user.add("I like tea")
    user.memory.close()
    with user.memory as same:
        assert same is user.memory
    assert user.memory.get(memory_id)["memory"] == "I like tea"
    assert user.add("And coffee")


def test_chat_is_not_offered_by_mem0(user: Bound) -> None:
    harmless(user, lambda: user.memory.chat("hello"), NotImplementedError)


def test_from_config_builds_nothing(user: Bound) -> None:
    harmless(user, lambda: type(user.memory).from_config({}), NotSupported)


def test_project_is_refused(user: Bound) -> None:
    harmless(user, lambda: user.memory.project, NotSupported)


def test_entity_store_is_refused(user: Bound) -> None:
    refused(user, lambda: user.memory.entity_store)


def test_each_public_name_of_memory_has_a_test_here(user: Bound) -> None:
    """A name that is new in a later Mem0 fails this test until somebody says what it does on a bound memory."""
    public = {name for name, _ in inspect.getmembers(import_module("mem0.memory.main").Memory) if name[0] != "_"}
    assert len(public) > 10
    tested = " ".join(name for name in globals() if name.startswith("test_"))
    assert [name for name in sorted(public) if f"test_{name}_" not in tested] == []


def test_nothing_is_written_to_disk(user: Bound, llm: ScriptedLLM, tmp_path: Path) -> None:
    user.memory.add(TALK, **user.scope)
    user.memory.search("tea", filters=user.scope)
    home = Path(import_module("mem0.memory.setup").mem0_dir)
    # The home is below the folder of the first test of the process, which is removed when that has passed.
    assert {path.name for path in home.glob("*")} <= {"config.json"}
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "config.json"] == []
