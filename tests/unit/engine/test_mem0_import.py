"""Importing Mem0 leaves the process as it was: no call, no file outside of its folder, no changed logger."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from service.engine import Engine, EngineFailed, LlmSettings, mem0_import
from service.engine.errors import EngineStarting
from service.errors import ExtractionUnavailable
from service.records import Message, SubjectNames
from tests.llm.fixtures import Outside, Shelf
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]

# Everything is looked at from before the first import of this package.
PROBE = """
import json, logging, os, sys, threading, warnings
import numpy
events = []
def hear(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork"):
        events.append([event, repr(args)])
    if event == "open" and isinstance(args[0], str) and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        events.append(["open", args[0]])
sys.dont_write_bytecode = True
sys.addaudithook(hear)
logging.getLogger("urllib3").setLevel(logging.INFO)
import service.engine
early = "mem0" in sys.modules
filters = list(warnings.filters)
from pathlib import Path
from service.engine.mem0_import import import_mem0
import_mem0(Path(sys.argv[1]))
import_mem0(Path(sys.argv[1]))
import service.engine.bound
from mem0.memory import telemetry
print(json.dumps({
    "early": early,
    "events": events,
    "filters": warnings.filters == filters,
    "levels": {n: logging.getLogger(n).level for n in ("urllib3", "posthog")},
    "threads": [t.name for t in threading.enumerate()],
    "posthog": [repr(telemetry.client_telemetry.posthog), repr(telemetry._oss_telemetry_instance)],
    "spacy": "spacy" in sys.modules,
}))
"""


def run_probe(home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROBE, str(home / "mem0")],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(home / "nobody"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def may_start_processes(nothing_leaves: Outside) -> None:
    """Take the guard off: this test starts a process on purpose, which watches itself."""
    nothing_leaves.watching = False


@pytest.mark.usefixtures("may_start_processes")
@pytest.mark.parametrize("environment", [{}, {"MEM0_TELEMETRY": "true", "OPENAI_LOG": "debug"}])
def test_an_import_leaves_no_trace(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run_probe(tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    written = [path for event, path in seen["events"] if event == "open"]
    assert [event for event in seen["events"] if event[0] != "open"] == []
    assert [path for path in written if tmp_path / "mem0" not in (Path(path), Path(path).parent)] == []
    assert {path.name for path in (tmp_path / "mem0").iterdir()} == {"config.json"}
    assert not (tmp_path / "nobody").exists()
    assert seen["early"] is False, "importing the package must not import Mem0"
    assert seen["filters"] is True
    assert seen["levels"] == {"urllib3": logging.INFO, "posthog": logging.NOTSET}
    assert seen["threads"] == ["MainThread"]
    assert seen["posthog"] == ["None", "None"]
    assert seen["spacy"] is False
    assert done.stderr == ""


@pytest.mark.usefixtures("may_start_processes")
def test_telemetry_that_is_already_on_is_refused(tmp_path: Path) -> None:
    """PostHog's threads and hosts would be there for the life of the process."""
    code = (
        "import sys, posthog; from pathlib import Path; from types import SimpleNamespace\n"
        "posthog.Posthog = lambda *a, **k: SimpleNamespace(shutdown=lambda: None)\n"  # no thread, no host
        "import mem0\n"
        "from service.engine.mem0_import import import_mem0\n"
        "import_mem0(Path(sys.argv[1]))\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MEM0_DIR": str(tmp_path / "first")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "mem0")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "EngineFailed: Mem0's telemetry is on" in done.stderr


def test_all_of_mem0s_loggers_are_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    mem0_import.import_mem0(tmp_path / "mem0")
    for module in ("mem0.memory.main", "mem0.memory.storage", "mem0.utils.spacy_models", "mem0.llms.openai"):
        import_module(module)
    loggers = [name for name in logging.root.manager.loggerDict if name == "mem0" or name.startswith("mem0.")]
    assert len(loggers) > 3
    assert [name for name in loggers if logging.getLogger(name).isEnabledFor(logging.CRITICAL)] == []
    # Some of the providers' clients write whole requests at DEBUG.
    assert [name for name in ("openai._base_client", "anthropic") if logging.getLogger(name).isEnabledFor(20)] == []


def test_spacy_is_not_asked_for_even_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mem0 downloads the model with pip if spaCy is there and the model is not."""

    class Forbidden:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"spacy.{name} was used")

    mem0_import.import_mem0(tmp_path / "mem0")
    monkeypatch.setitem(sys.modules, "spacy", Forbidden())
    models = import_module("mem0.utils.spacy_models")
    assert models.get_nlp_full() is None
    assert models.get_nlp_lemma() is None
    assert import_module("mem0.utils.lemmatization").lemmatize_for_bm25("Two memories") == "Two memories"
    assert import_module("mem0.utils.entity_extraction").extract_entities_batch(["Alice"]) == [[]]


def test_mem0_works_where_md5_is_forbidden(engine: Engine, llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine in FIPS mode."""
    allowed = hashlib.md5

    def fips(data: bytes = b"", *, usedforsecurity: bool = True) -> Any:
        if usedforsecurity:
            raise ValueError("disabled for FIPS")
        return allowed(data, usedforsecurity=False)

    monkeypatch.setattr(hashlib, "md5", fips)
    llm.facts("Alice likes tea")
    extraction = engine.extract([Message("user", "tea!")], SubjectNames(user_id="u"), reader=Shelf.of("an older one"))
    assert [draft.text for draft in extraction.drafts] == ["Alice likes tea"]


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mem0_import, "VERSION", "nothing")
    with pytest.raises(EngineFailed, match="fits nothing only"):
        mem0_import.import_mem0(tmp_path / "mem0")


def test_without_an_llm_the_engine_is_off_and_mem0_not_even_imported(tmp_path: Path, embedder: Any) -> None:
    engine = Engine(None, embedder, home=tmp_path / "mem0")
    engine.start_loading()
    state, reason = engine.state()
    assert state == "off"
    assert "llm.provider" in str(reason)
    assert not (tmp_path / "mem0").exists()
    with pytest.raises(ExtractionUnavailable, match=r"llm\.provider"):
        engine.extract([Message("user", "x")], SubjectNames(user_id="u"), reader=Shelf())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (LlmSettings("nonsense"), "unknown to Mem0"),
        (LlmSettings("openai", {"api_key": "k", "colour": "red"}), "colour"),
        (LlmSettings("ollama", {"model": "m"}), "ollama"),
    ],
)
def test_an_engine_that_cannot_be_built_says_why(
    settings: LlmSettings, says: str, tmp_path: Path, embedder: Any
) -> None:
    engine = Engine(settings, embedder, home=tmp_path / "mem0")
    with pytest.raises(EngineFailed, match=says) as caught:
        engine.extract([Message("user", "x")], SubjectNames(user_id="u"), reader=Shelf())
    assert caught.value.transient is False
    assert engine.state()[0] == "failed"
    assert says in str(engine.state()[1])


def test_a_missing_key_fails_the_engine_and_a_wrong_one_is_not_repeated(
    tmp_path: Path, embedder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    engine = Engine(LlmSettings("openai", {"openai_base_url": "sk-canary"}), embedder, home=tmp_path / "mem0")
    with pytest.raises(EngineFailed, match="check the key") as caught:
        engine.extract([Message("user", "x")], SubjectNames(user_id="u"), reader=Shelf())
    assert "canary" not in str(caught.value)


def test_a_home_that_cannot_be_made_fails_the_engine(tmp_path: Path, embedder: Any, llm: ScriptedLLM) -> None:
    (tmp_path / "file").touch()
    engine = Engine(LlmSettings("openai", llm.config), embedder, home=tmp_path / "file" / "mem0")
    with pytest.raises(EngineFailed, match="data folder"):
        engine.extract([Message("user", "x")], SubjectNames(user_id="u"), reader=Shelf())


def test_loading_happens_in_the_background(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    go_on = threading.Event()
    monkeypatch.setattr("service.engine.engine.import_mem0", lambda home: go_on.wait(30))
    engine.start_loading()
    engine.start_loading()
    assert engine.state()[0] == "starting"
    with pytest.raises(EngineStarting) as caught:
        engine.extract([Message("user", "x")], SubjectNames(user_id="u"), reader=Shelf(), wait=0.01)
    assert caught.value.transient is True
    assert [t.name for t in threading.enumerate()].count("engine-load") == 1
    go_on.set()
    engine.extract([Message("user", "x")], SubjectNames(user_id="u"), reader=Shelf())
    assert engine.state() == ("ok", None)


def test_entities_are_said_to_be_off(engine: Engine) -> None:
    state, reason = engine.features()["entities"]
    assert state == "off"
    assert "spaCy" in str(reason)
