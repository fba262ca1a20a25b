"""The list of what is shipped: made by the pinned tool, without a network, complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.image.dockerfile import REPOSITORY, read

pytestmark = pytest.mark.integration

TOOL = Path(sys.prefix) / "sbom" / "bin" / "cyclonedx-py"


def test_it_names_every_package_with_its_version(tmp_path: Path) -> None:
    """Asked of this environment, which holds what is shipped and what the tests need."""
    if not TOOL.exists():
        pytest.skip("`make test-deps` has not made the environment of cyclonedx-py")
    out = tmp_path / "memvault.cdx.json"
    (step,) = [
        one for one in read().stages["inventory"].all("RUN") if one.argv and one.argv[0].endswith("cyclonedx-py")
    ]
    assert step.argv
    replaced = {"/opt/memvault/bin/python": sys.executable, "/build/memvault.cdx.json": str(out)}
    arguments = [replaced.get(word, word) for word in step.argv[1:]]
    # Its validation of the document takes a quarter of a minute; the build and `make sbom` do it.
    subprocess.run([TOOL, *arguments, "--no-validate"], cwd=REPOSITORY, check=True, capture_output=True, timeout=120)
    document = json.loads(out.read_text())
    assert document["bomFormat"] == "CycloneDX"
    root = document["metadata"]["component"]
    assert (root["name"], root["version"]) == ("memvault", version("memvault"))
    listed = {canonicalize_name(part["name"]): part["version"] for part in document["components"]}
    lines = re.findall(r"^(\w[^\\\n]*)", (REPOSITORY / "config/requirements/runtime.txt").read_text(), re.MULTILINE)
    shipped = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate()]
    assert len(shipped) > 80
    for one in shipped:
        assert one.specifier.contains(listed[canonicalize_name(one.name)], prereleases=True), one.name
    assert any(part.get("licenses") for part in document["components"])


def test_make_and_the_image_make_it_in_the_same_way() -> None:
    makefile = (REPOSITORY / "Makefile").read_text().replace("\\\n", " ")
    recipe = " ".join(makefile.split("sbom: $(VENV)/.sbom")[1].split("\n\n")[0].split())
    (step,) = [
        one for one in read().stages["inventory"].all("RUN") if one.argv and one.argv[0].endswith("cyclonedx-py")
    ]
    assert step.argv
    assert " ".join(step.argv[3:-1]) in recipe
    assert "$(REQUIREMENTS)/runtime.txt" in recipe
