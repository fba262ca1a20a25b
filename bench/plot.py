"""Draws a run's figures: how much longer than the floor each contender takes, and what concurrent callers get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

#: Colours that people with any colour vision tell apart (Okabe and Ito).
_COLOURS: Final = {
    "embedder": "#56B4E9",
    "floor": "#999999",
    "bare": "#E69F00",
    "engine": "#0072B2",
    "REST": "#009E73",
    "MCP": "#CC79A7",
    "mem0ai": "#D55E00",
}


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write an SVG of a results document: for each operation the ratio over the memories, and calls/s over callers.

    Shown are the cases of the fewest tenants; the scale of the ratios is logarithmic.
    """
    cells = document["cells"]
    tenants = min(cell["tenants"] for cell in cells)
    shown = [cell for cell in cells if cell["tenants"] == tenants]
    operations = list(dict.fromkeys(cell["operation"] for cell in shown))
    figure = Figure(figsize=(9, 3.2 * len(operations)), layout="constrained")
    FigureCanvasSVG(figure)
    machine = document["machine"]
    figure.suptitle(f"{machine['cores']:.0f} cores, {machine['memory_gib']:.0f} GiB")
    axes = figure.subplots(len(operations), 2, squeeze=False)
    fewest = min(cell["callers"] for cell in shown)
    largest = max(cell["memories"] for cell in shown)
    for row, operation in zip(axes, operations, strict=True):
        alone = [cell for cell in shown if cell["operation"] == operation and cell["callers"] == fewest]
        _lines(row[0], alone, "memories", "ratio")
        who = "one caller" if fewest == 1 else f"{fewest} callers"
        row[0].set(title=f"{operation}, {who}", xlabel="memories", ylabel="p50, times the floor")
        row[0].set(xscale="log", yscale="log")
        many = [cell for cell in shown if cell["operation"] == operation and cell["memories"] == largest]
        _lines(row[1], many, "callers", "per_second")
        row[1].set(title=f"{operation}, {largest:,} memories", xlabel="callers", ylabel="calls per second")
        row[1].set(xscale="log")
        row[1].set_ylim(bottom=0)
    axes[0][0].legend()
    # Nothing in the file says when or by what it was made, so that the same figures make the same file.
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _lines(axis: Any, cells: Sequence[Mapping[str, Any]], across: str, up: str) -> None:
    for name in dict.fromkeys(cell["contender"] for cell in cells):
        own = [cell for cell in cells if cell["contender"] == name and cell["calls"]]
        if not (points := sorted((cell[across], cell[up]) for cell in own)):
            continue
        axis.plot(*zip(*points, strict=True), marker="o", label=name, color=_COLOURS.get(name, "#000000"))
    places = sorted({cell[across] for cell in cells})
    axis.set_xticks(places, [f"{place:,}" for place in places])
    axis.minorticks_off()
    axis.grid(visible=True, alpha=0.3)
