"""`memvault model`: writes the built-in embedding model's graph, for images that bring it along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import Json, show
from service.embeddings.minilm_graph import ensure_graph


def model(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; it is made if it is missing.")], json: Json = False
) -> None:
    """Write the built-in embedding model into a folder that may be read-only afterwards (`embeddings.folder`)."""
    graph = ensure_graph(folder)
    # Whoever runs the image reads it, whatever the umask of the build.
    folder.chmod(0o755)
    for file in (graph, graph.with_suffix(".weights")):
        file.chmod(0o644)
    show({"graph": str(graph)}, as_json=json, text=f"the model is in {folder}")
