"""Asks the index, for `memvault doctor`, without opening it."""

from __future__ import annotations

from pathlib import Path

from service.index.edge_folder import owner_of
from service.settings import Settings
from service.wiring.embedding import index_folders


def index_owner(data_dir: Path) -> str | None:
    """Return the process that has a folder of the embedded index open, of whatever model, or None."""
    return next((owner for folder in index_folders(data_dir) if (owner := owner_of(folder))), None)


def ask_index_server(settings: Settings) -> tuple[str, str | None]:
    """Return how the Qdrant server of `index.url` answers and, when that is not well, what to do."""
    # Here, since the client of a server takes 0.8 s to import.
    from service.index.server import OLDEST
    from service.index.server_client import ask

    chosen = settings.index
    if chosen.url is None:
        raise ValueError("index.url is not set")
    key = None if chosen.api_key is None else chosen.api_key.get_secret_value()
    return ask(
        chosen.url,
        api_key=key,
        ca_file=chosen.ca_file,
        grpc_port=chosen.grpc_port,
        timeout=chosen.timeout,
        oldest=OLDEST,
        cluster=bool(chosen.shard_keys),
    )
