"""What the engine leans on inside Mem0. A failure here means: read the named code again before moving the version."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from functools import reduce
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest

from service.engine import mem0_import
from service.engine.shapes import LlmSettings
from service.engine.staging import StagingEmbedder, StagingHistory, StagingVectorStore, UnitOfWork
from service.records import SubjectNames
from tests.llm.fixtures import Shelf

pytestmark = pytest.mark.integration

#: Every attribute that the path of `add` takes from `self`, by method.
LEANED_ON = {
    "add": {"_add_to_vector_store", "_create_procedural_memory", "config.llm.config.get", "llm"},
    "_add_to_vector_store": {
        "_create_memory",
        "_existing_entities_by_text",
        "_normalize_entity_text",
        "api_version",
        "custom_instructions",
        "db.add_history",
        "db.batch_add_history",
        "db.get_last_messages",
        "db.save_messages",
        "embedding_model.embed",
        "embedding_model.embed_batch",
        "entity_store.insert",
        "entity_store.search_batch",
        "entity_store.update",
        "llm.generate_response",
        "vector_store.insert",
        "vector_store.search",
    },
    "_create_procedural_memory": {"_create_memory", "embedding_model.embed", "llm.generate_response"},
    "_create_memory": {"db.add_history", "embedding_model.embed", "vector_store.insert"},
}

#: What each piece is relied on for, with a digest of its source.
SOURCES = {
    "mem0.memory.main:Memory.__init__": ("7d039364d7aa8600", "the attributes that BoundMemory sets itself"),
    "mem0.memory.main:Memory.add": ("35ccc36dba4b6d7d", "scope arguments, the fork to procedures, the notices"),
    "mem0.memory.main:Memory._add_to_vector_store": (
        "a8cb8d1dea1b052f",
        "the order of calls to the stores; which errors are swallowed; duplicates by MD5",
    ),
    "mem0.memory.main:Memory._create_procedural_memory": (
        "3786d2dcf28ba14f",
        "the one call of the LLM without response_format",
    ),
    "mem0.memory.main:Memory._create_memory": ("2352aea276ac1aea", "the payload of a procedure"),
    "mem0.memory.main:_build_filters_and_metadata": ("483d18597d54a67e", "the scope that adapters compare with"),
    "mem0.memory.main:_build_session_scope": (
        "ebbe6e6ed5205a38",
        "the key of the message buffer that adapters compare with",
    ),
    "mem0.memory.utils:parse_messages": (
        "969675556ca32324",
        "one message is `role: content`, which is why later lines are indented",
    ),
    "mem0.memory.utils:parse_vision_messages": ("ff5483618f4c81ab", "messages of text pass unchanged"),
    "mem0.memory.utils:remove_code_blocks": ("d4467c52d3ce1ceb", "what is cut out of answers, which as_json escapes"),
    "mem0.memory.utils:process_telemetry_filters": ("3fce970075ef13bc", "runs MD5 even with telemetry off"),
    "mem0.memory.telemetry": ("89f36bd0b87059fa", "the switch, and where clients are made"),
    "mem0.memory.notices:display_first_run_notice": ("d1ea55ab87cece45", "silent with telemetry off"),
    "mem0.memory.notices:display_temporal_usage_notice": ("c827ae4b3365e94e", "silent with telemetry off"),
    "mem0.memory.notices:display_scale_threshold_notice": ("991c9a4ea8058c7d", "silent with telemetry off"),
    "mem0.memory.notices:detect_scale_threshold_from_add_result": ("bfe6a1d28b5ed49c", "silent with telemetry off"),
    "mem0.memory.setup": ("840d3af99b628be4", "MEM0_DIR, and the one file that is written"),
    "mem0.configs.prompts:generate_additive_extraction_prompt": (
        "b1bb108b89b10929",
        "the observation date's section, and that only instructions come after it",
    ),
    "mem0.configs.prompts:_format_conversation_history": ("27aa99f721cc9e65", "one message is `role: content`"),
    "mem0.configs.prompts:ADDITIVE_EXTRACTION_PROMPT": (
        "ad19187a37813ef7",
        "the shape of the answer that answers.py reads",
    ),
    "mem0.configs.prompts:PROCEDURAL_MEMORY_SYSTEM_PROMPT": ("9ed026ae3bcc12e1", "instructions are added to it"),
    "mem0.utils.spacy_models": ("d3e5705a56b826a8", "the two flags that keep the models from being downloaded"),
    "mem0.utils.lemmatization:lemmatize_for_bm25": ("15493ad160731fce", "returns the text without a model"),
    "mem0.utils.entity_extraction:extract_entities_batch": ("dd4a3a70af566bf8", "finds nothing without a model"),
    "mem0.utils.factory:LlmFactory.create": ("72cdcaaae6766f16", "how a config becomes an LLM"),
    "mem0.llms.openai:OpenAILLM": (
        "570c2fe438a5c179",
        "the client attribute, the response callback, the environment variables",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def mem0(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Mem0, imported as the engine imports it."""
    mem0_import.import_mem0(tmp_path_factory.mktemp("mem0"))


def source_of(name: str) -> str:
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    if path:
        found = reduce(getattr, path.split("."), found)
    return found if isinstance(found, str) else inspect.getsource(found)


def taken_from_self(function: Any) -> set[str]:
    """The longest attribute chains that a method takes from `self`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    chains = (ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and id(n) not in inner)
    return {chain.removeprefix("self.") for chain in chains if chain.startswith("self.")}


def test_the_version_is_the_one_that_the_seam_was_read_for() -> None:
    assert metadata.version("mem0ai") == mem0_import.VERSION == "2.2.1"
    assert "mem0ai==2.2.1" in (Path(__file__).parents[3] / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", SOURCES)
def test_the_code_is_the_one_that_was_read(name: str) -> None:
    digest, reason = SOURCES[name]
    found = hashlib.sha256(source_of(name).encode()).hexdigest()[:16]
    assert found == digest, f"{name} changed: read it again ({reason}), adapt the seam, then pin {found}"


@pytest.mark.parametrize("method", LEANED_ON)
def test_add_takes_from_self_what_the_seam_provides(method: str) -> None:
    memory_class = import_module("mem0.memory.main").Memory
    assert taken_from_self(getattr(memory_class, method)) == LEANED_ON[method]


def test_a_bound_memory_has_each_attribute_of_a_constructed_one() -> None:
    main, bound = import_module("mem0.memory.main"), import_module("service.engine.bound")
    tree = ast.parse(textwrap.dedent(inspect.getsource(main.Memory.__init__)))
    targets = [t for n in ast.walk(tree) if isinstance(n, ast.Assign) for t in n.targets]
    constructed = {ast.unparse(t).removeprefix("self.") for t in targets if ast.unparse(t).startswith("self.")}
    unit = UnitOfWork(SubjectNames(user_id="u"), Shelf())
    memory = bound.BoundMemory(unit, None, None, None)
    # The telemetry store is made only with telemetry on.
    assert constructed - {"_telemetry_vector_store"} == set(vars(memory)) - {"_unit"}


@pytest.mark.parametrize(
    ("adapter", "original"),
    [
        (StagingVectorStore, "mem0.vector_stores.base:VectorStoreBase"),
        (StagingHistory, "mem0.memory.storage:SQLiteManager"),
        (StagingEmbedder, "mem0.embeddings.base:EmbeddingBase"),
    ],
)
def test_an_adapter_takes_each_call_of_the_original(adapter: type, original: str) -> None:
    """No method that Mem0 could call is missing, and each takes at least the parameters of the original."""
    module, _, name = original.partition(":")
    for method, function in inspect.getmembers(getattr(import_module(module), name), inspect.isfunction):
        if method.startswith("_"):
            continue
        ours = inspect.signature(getattr(adapter, method)).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in ours.values())
        missing = set(inspect.signature(function).parameters) - set(ours)
        assert takes_any or not missing, f"{adapter.__name__}.{method} lacks {missing}"


def test_the_provider_finds_the_names_that_it_uses() -> None:
    factory = import_module("mem0.utils.factory").LlmFactory
    _, config_class = factory.provider_to_class["openai"]
    assert {"response_callback", "openai_base_url"} <= set(inspect.signature(config_class).parameters)
    llm = factory.create("openai", {"api_key": "k", "openai_base_url": "http://127.0.0.1:9/v1"})
    assert callable(llm.client.with_options)
    assert LlmSettings("openai", {"openai_base_url": "u"}).base_url == "u"
