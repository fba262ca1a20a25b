"""Every link inside the documentation leads somewhere, and every page can be reached from the README."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import ROOT, anchors, blocks, links, page, pages

pytestmark = pytest.mark.unit

#: What a block may be: run by test_examples, loaded by test_settings, drawn by GitHub, sent by the tests of the audit
#: trail (http), or not to be run.
LANGUAGES = {"bash", "python", "yaml", "json", "mermaid", "http", "text"}


def inside(path: str) -> Iterator[tuple[str, str]]:
    """The links of a page that stay in the repository: file and anchor."""
    for target in links(path):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        yield posixpath.normpath(posixpath.join(posixpath.dirname(path), file)) if file else path, anchor


@pytest.mark.parametrize("path", list(pages()))
def test_links_lead_somewhere(path: str) -> None:
    for file, anchor in inside(path):
        assert (ROOT / file).exists(), f"{path} links to {file}, which is not there"
        if anchor:
            assert anchor in anchors(file), f"{path} links to {file}#{anchor}, which is no heading"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or path not in pages():
            continue
        reached.add(path)
        waiting += [file for file, _ in inside(path)]
    assert reached == set(pages())


@pytest.mark.parametrize("path", list(pages()))
def test_every_block_says_what_it_is(path: str) -> None:
    assert {block.language for block in blocks(path)} <= LANGUAGES
    assert page(path).count("\n```") == 2 * len(blocks(path)), f"{path}: a fence is not closed"


@pytest.mark.parametrize("path", [path for path in pages() if path.startswith("docs/decisions/0")])
def test_a_decision_has_its_four_parts(path: str) -> None:
    headings = re.findall(r"^## (.+)$", page(path), re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Alternatives"]
    assert page(path).startswith(f"# {posixpath.basename(path)[:4]}: ")


@pytest.mark.parametrize("path", list(pages()))
def test_diagrams_are_of_a_kind_that_is_drawn(path: str) -> None:
    for block in blocks(path):
        if block.language == "mermaid":
            first = block.text.split()[0]
            assert first in {"flowchart", "sequenceDiagram"}, block
            opened = len(re.findall(r"^\s*(?:subgraph|loop|alt|opt|par)\b", block.text, re.MULTILINE))
            assert opened == len(re.findall(r"^\s*end\s*$", block.text, re.MULTILINE)), block
            for left, right in ("[]", "()", "{}"):
                assert block.text.count(left) == block.text.count(right), block
