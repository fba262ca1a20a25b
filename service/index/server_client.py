"""Opens the connection to a Qdrant server: gRPC or HTTP, with a key, TLS and an authority of one's own."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import httpx
from qdrant_client import QdrantClient


def connect(
    url: str,
    *,
    api_key: str | None,
    ca_file: Path | None,
    grpc_port: int | None,
    timeout: float,
    connections: int,
) -> QdrantClient:
    """Return a client for a server; nothing is sent yet. No proxy of the environment is used.

    `grpc_port` None speaks HTTP only. `timeout` is in seconds.
    """
    if ca_file is not None and grpc_port is not None:
        # gRPC's own variable: its Python client has no argument that the Qdrant library would pass on.
        os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = str(ca_file)
    with warnings.catch_warnings():
        # A key without TLS is refused by the settings except where they say that the network may be trusted.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection", category=UserWarning)
        return QdrantClient(
            url=url,
            api_key=api_key,
            prefer_grpc=grpc_port is not None,
            grpc_port=grpc_port or 6334,
            timeout=max(1, round(timeout)),
            # Asked by the index itself, once the server answers.
            check_compatibility=False,
            trust_env=False,
            verify=True if ca_file is None else str(ca_file),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
