"""Opens the connection to a Qdrant server: gRPC or HTTP, with a key, TLS and an authority of one's own."""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path

import httpx
from qdrant_client import QdrantClient

from service.errors import ConfigurationError


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
    options: dict[str, object] = {"grpc.enable_http_proxy": 0}
    verify: bool | ssl.SSLContext = True
    if ca_file is not None:
        try:
            verify = ssl.create_default_context(cafile=ca_file)
            options["root_certificates"] = ca_file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"index.ca_file {ca_file}: cannot be read ({error.strerror or error})") from None
    with warnings.catch_warnings():
        # A key without TLS is refused by the settings except where they say that the network may be trusted.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection", category=UserWarning)
        return QdrantClient(
            url=url,
            api_key=api_key,
            prefer_grpc=grpc_port is not None,
            grpc_port=grpc_port or 6334,
            grpc_options=options,
            timeout=max(1, round(timeout)),
            # Asked by the index itself, once the server answers.
            check_compatibility=False,
            trust_env=False,
            verify=verify,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
