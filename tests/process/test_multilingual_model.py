"""The example of docs/languages.md: a multilingual embedding model behind an OpenAI-compatible address."""

from __future__ import annotations

import shlex

import pytest
import yaml

from tests.docs.pages import blocks
from tests.llm.multilingual import MultilingualEmbeddings
from tests.process.memvault import Memvault, add, search

pytestmark = pytest.mark.integration

PAGE = "docs/languages.md"
FACTS = ["Sie wohnt in einem Haus am Fluss", "Sie hat zwei Katzen", "Elle ne mange plus de viande", "Viaja en tren"]
ASKED = {
    "Where does she live?": FACTS[0],
    "¿Qué animal tiene en casa?": FACTS[1],
    "Was isst sie nicht?": FACTS[2],
    "Mit welchem Zug reist sie?": FACTS[3],
}


def test_the_example_brings_a_multilingual_model_in(memvault: Memvault) -> None:
    (config,) = [yaml.safe_load(block.text) for block in blocks(PAGE) if block.language == "yaml"]
    (commands,) = [block.text for block in blocks(PAGE) if "--embedder" in block.text]
    embeddings = config["embeddings"]
    with MultilingualEmbeddings(dimensions=embeddings["dimensions"], model=embeddings["config"]["model"]) as server:
        # The page's section as it stands; only the address is this server's.
        embeddings["config"]["openai_base_url"] = server.settings["config"]["openai_base_url"]
        file = memvault.cwd / "multilingual.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        memvault.start()
        with memvault.client() as client:
            add(client, *FACTS)
            before = [search(client, question)[0]["memory"] for question in ASKED]
            assert before != list(ASKED.values()), "the built-in model does not find them all"
        for line in commands.splitlines():
            done = memvault.run(*shlex.split(line, comments=True)[1:])
            assert done.returncode == 0, done.stderr
        # The last step: the section is in the configuration of the next start.
        memvault.stop()
        memvault.start("--config", str(file))
        with memvault.client() as client:
            for question, fact in ASKED.items():
                best = search(client, question)[0]
                assert best["memory"] == fact
                assert best["score"] > 0.5
        assert [question] == server.calls[-1]
