"""docs/settings.md has every setting as it is, and every YAML in the documentation is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import ENV_PREFIX, load_settings, setting_names
from service.settings.loading import TEST_ENV_PREFIX
from tests.docs.pages import ROOT, Block, blocks, page, pages, prose
from tests.docs.settings_page import settings_page

pytestmark = pytest.mark.unit

EXAMPLE = ROOT / "config" / "memvault.yaml"
YAML_BLOCKS = [block for path in pages() for block in blocks(path) if block.language == "yaml"]


def test_the_page_is_the_generated_one() -> None:
    """Else run: .venv/bin/python -m tests.docs.settings_page > docs/settings.md"""
    assert page("docs/settings.md") == settings_page()


def test_every_setting_is_on_the_page() -> None:
    for name, field in setting_names().items():
        assert f"| `{name}` |" in page("docs/settings.md")
        assert field.description, f"{name} has no meaning"


@pytest.mark.parametrize("path", [path for path in pages() if path != "docs/settings.md"])
def test_settings_that_are_named_exist(path: str) -> None:
    sections = {name.split(".")[0] for name in setting_names() if "." in name}
    inner = {name.rsplit(".", 1)[0] for name in setting_names() if "." in name}
    known = {*setting_names(), *sections, *inner}
    for word in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?::[^`]*)?`", prose(path)):
        if word.split(".")[0] in sections and not word.endswith((".yaml", ".py", ".md", ".json")):
            assert word in known, f"{path}: there is no setting {word}"
    variables = {f"{ENV_PREFIX}{name.upper().replace('.', '__')}" for name in setting_names()}
    for variable in re.findall(rf"\b(?!{TEST_ENV_PREFIX}){ENV_PREFIX}[A-Z_]*[A-Z]\b", page(path)):
        assert variable in variables, f"{path}: there is no variable {variable}"


def test_there_are_yaml_blocks() -> None:
    assert len(YAML_BLOCKS) >= 4


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=str)
def test_yaml_is_accepted(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "memvault.yaml"
    file.write_text(block.text, encoding="utf-8")
    assert load_settings(config=file, environ={}).model_fields_set


def test_the_example_changes_nothing() -> None:
    """config/memvault.yaml shows the defaults."""
    shown, usual = load_settings(config=EXAMPLE, environ={}), load_settings(environ={})
    assert shown.fallback == usual.fallback
    assert shown.worker_in_process == usual.worker_in_process
    same = {"extraction": usual.extraction, "queue": usual.queue}
    assert shown.model_copy(update=same) == usual


def test_the_example_is_accepted_without_its_comments(tmp_path: Path) -> None:
    """What is commented out in it is right, too."""
    file = tmp_path / "memvault.yaml"
    text = re.sub(r"^# (?=(database|llm):|  )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    file.write_text(text, encoding="utf-8")
    settings = load_settings(config=file, environ={})
    assert settings.llm.provider == "openai"
    assert not settings.embedded
