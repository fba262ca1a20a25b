"""Opens the connection to a Qdrant server: gRPC or HTTP, with a key, TLS and an authority of one's own."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse

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


def ask(
    url: str,
    *,
    api_key: str | None,
    ca_file: Path | None,
    grpc_port: int | None,
    timeout: float,
    oldest: Sequence[int],
    cluster: bool = False,
) -> tuple[str, str | None]:
    """Return how a server answers and, when that is not well, what to do about it. `cluster`: it must be one."""
    client = connect(url, api_key=api_key, ca_file=ca_file, grpc_port=None, timeout=timeout, connections=2)
    try:
        version = client.info().version
        client.get_collections()
        alone = cluster and client.cluster_status().status != "enabled"
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            return "the Qdrant server refuses the key", "set index.api_key to the server's QDRANT__SERVICE__API_KEY"
        return f"the Qdrant server answers {error.status_code}", "look at its log, and whether index.url names it"
    except Exception as error:
        remedy = "start it, correct index.url and index.ca_file, or open the way to it"
        return f"the Qdrant server does not answer ({type(error).__name__})", remedy
    finally:
        client.close()
    if tuple(int(part) for part in version.split("-")[0].split(".")[:2]) < tuple(oldest):
        return f"the Qdrant server is {version}", f"install {'.'.join(map(str, oldest))} or newer"
    if alone:
        remedy = "set index.shard_keys to 0, or start its nodes with QDRANT__CLUSTER__ENABLED=true"
        return "the Qdrant server is no cluster, which alone has shard keys", remedy
    if grpc_port is not None:
        try:
            socket.create_connection((urlsplit(url).hostname or "", grpc_port), timeout=timeout).close()
        except OSError:
            return f"nothing listens on port {grpc_port} of the Qdrant server", "set index.grpc_port, or null for HTTP"
    return f"the Qdrant server is {version}", None
