"""Renders the Helm chart, once for each set of values, and finds objects in what came out."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy import helm_binary

CHART: Final = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "memvault"
CI_FILES: Final = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
#: The range that Chart.yaml states, oldest to newest.
OLDEST, USUAL, NEWEST = "1.25.0", "1.33.0", "1.37.0"
RELEASE: Final = "mem"
NAMESPACE: Final = "apps"

Object = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """What one rendering made."""

    objects: list[Object]

    def of(self, kind: str) -> dict[str, Object]:
        """The objects of a kind by name, the release's prefix taken off."""
        found = [one for one in self.objects if one["kind"] == kind]
        return {short(one["metadata"]["name"]): one for one in found}

    def pods(self) -> dict[str, Object]:
        """The spec of every pod, of whatever makes it, by component, with its labels as `labels`."""
        return {labels["app.kubernetes.io/component"]: spec | {"labels": labels} for labels, spec in self._pods()}

    def _pods(self) -> Iterator[tuple[Mapping[str, str], Object]]:
        for one in self.objects:
            if one["kind"] == "Pod":
                yield one["metadata"]["labels"], one["spec"]
                continue
            holder = one.get("spec", {})
            if one["kind"] == "CronJob":
                holder = holder["jobTemplate"]["spec"]
            if isinstance(holder, dict) and "template" in holder:
                yield holder["template"]["metadata"]["labels"], holder["template"]["spec"]

    def config(self, kind: str) -> Any:
        """The settings of one kind of process."""
        name = kind if kind in {"migrate", "restored"} else ""
        return yaml.safe_load(self.of("ConfigMap")[name]["data"][f"{kind}.yaml"])


def short(name: str) -> str:
    """A name without the release's."""
    return name.removeprefix(f"{RELEASE}-memvault").removeprefix("-")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm; the test is skipped where it is not installed."""
    try:
        binary = helm_binary.find()
    except helm_binary.NotInstalled as reason:
        pytest.skip(str(reason))
    return subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60, check=False)


@cache
def render(ci: str, *sets: str, version: str = USUAL) -> Rendered:
    """Render a file of `ci/` with `--set-json` on top."""
    done = _template(ci, *sets, version=version)
    assert done.returncode == 0, done.stderr
    return Rendered([one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one])


def refusal(ci: str | None, *sets: str, version: str = USUAL) -> str:
    """Return why a rendering failed."""
    done = _template(ci, *sets, version=version)
    assert done.returncode != 0, "it was rendered"
    return done.stderr


def _template(ci: str | None, *sets: str, version: str) -> subprocess.CompletedProcess[str]:
    values = ["--values", str(CHART / "ci" / f"{ci}-values.yaml")] if ci else []
    values += [argument for one in sets for argument in ("--set-json", one)]
    where = [RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", version]
    return helm("template", *where, *values)
