"""Writes the chart's README from values.yaml: `python -m tests.docs.chart_page > deploy/helm/memvault/README.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[2] / "deploy" / "helm" / "memvault"
_MARK: Final = "# -- "

_HEAD = """\
# memvault

The Helm chart of Memvault: services, workers, the migration, jobs, network policies and monitoring, for Kubernetes
{versions}. How to install it, task by task: [Helm](../../../docs/operate/helm.md).

What has no default and is needed stops the rendering with the name of the value; so does a feature that calls somebody
while no egress rule lets it. A name that is not in the table is refused.

*Generated from `values.yaml`: `.venv/bin/python -m tests.docs.chart_page > deploy/helm/memvault/README.md`.*
"""


@dataclass(frozen=True)
class Value:
    """One row: a value with its default and its meaning."""

    name: str
    default: str
    meaning: str


def values() -> Iterator[Value]:
    """Every value that has a comment, in the order of the file.

    Raises:
        ValueError: for a value without a comment, and none above it.
    """
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    yield from _rows(yaml.compose(text, Loader=yaml.SafeLoader), text.splitlines(), "")


def chart_page() -> str:
    """Return the whole page."""
    chart: Any = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    low, high = (part.strip("<>=").removesuffix(".0-0") for part in chart["kubeVersion"].split())
    last = f"1.{int(high.split('.')[1]) - 1}"
    groups: dict[str, list[Value]] = {}
    for value in values():
        groups.setdefault(value.name.split(".")[0] if "." in value.name else "", []).append(value)
    parts = [_HEAD.format(versions=f"{low} to {last}")]
    for group, rows in groups.items():
        table = "".join(f"| `{row.name}` | {row.default} | {row.meaning} |\n" for row in rows)
        parts.append(
            f"## {f'`{group}`' if group else 'General'}\n\n| value | default | meaning |\n|---|---|---|\n{table}"
        )
    return "\n".join(parts)


def _rows(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        above = lines[key.start_mark.line - 1].strip() if key.start_mark.line else ""
        if above.startswith(_MARK):
            default = _plain(value)
            shown = json.dumps(default, separators=(", ", ": "), ensure_ascii=False)
            cell = "empty" if default in ("", [], {}) else f"`{shown}`"
            yield Value(name, cell.replace("|", "\\|"), above.removeprefix(_MARK).replace("|", "\\|"))
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _rows(value, lines, f"{name}.")
        else:
            raise ValueError(f"values.yaml: {name} has no line {_MARK!r} above it")


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


if __name__ == "__main__":
    sys.stdout.write(chart_page())
