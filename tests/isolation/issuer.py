"""An issuer of access tokens on the loopback interface: metadata, signing keys and a token endpoint over real HTTP."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

#: The claim of every token by default, in the place of what an operator would configure.
TENANT = "acme"
SUBJECT = "alice"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Issuer:
    """Issues what a test asks for, wrong tokens too, and counts what it is asked."""

    def __init__(self) -> None:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.gate.wait(30)
                if issuer.status != 200:
                    self._send(issuer.status, {}, issuer.headers)
                    return
                document = issuer.documents.get(self.path)
                self._send(404 if document is None else 200, document)

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                form = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
                issuer.forms.append(form)
                token = issuer.token(aud=form["resource"], scope=form["scope"], sub="orchestrator")
                answer = {"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": form["scope"]}
                self._send(200, answer)

            def _send(self, status: int, document: Any, headers: Mapping[str, str] | None = None) -> None:
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.asked: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        #: Closed while the issuer hangs.
        self.gate = threading.Event()
        self.gate.set()
        self.keys: dict[str, PrivateKey] = {"first": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.documents: dict[str, Any] = {}
        self.publish()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def oidc(self) -> dict[str, Any]:
        """The settings that trust this issuer."""
        return {"issuer": self.url}

    @property
    def fetches(self) -> int:
        """How often the signing keys were asked for."""
        return self.asked.count("/keys")

    def publish(self, **more: Any) -> None:
        """Publish the metadata and the present keys; `more` are fields of each key."""
        metadata = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "response_types_supported": ["code"],
            "grant_types_supported": ["client_credentials"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        }
        keys = [public(key) | {"kid": kid} | more for kid, key in self.keys.items()]
        self.documents = {"/.well-known/openid-configuration": metadata, "/keys": {"keys": keys}}

    def add(self, kid: str, key: PrivateKey | None = None) -> None:
        """Publish one more key."""
        self.keys[kid] = key or ec.generate_private_key(ec.SECP256R1())
        self.publish()

    def withdraw(self, kid: str) -> PrivateKey:
        """Publish a key no more, and return it."""
        key = self.keys.pop(kid)
        self.publish()
        return key

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return good claims with changes; None leaves a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "http://127.0.0.1:8080/mcp",
            "sub": SUBJECT,
            "tenant": TENANT,
            "scope": "memory:read memory:write",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
        }
        return {name: value for name, value in (claims | changed).items() if value is not None}

    def token(
        self,
        *,
        kid: str | None = "first",
        alg: str | None = None,
        key: PrivateKey | None = None,
        headers: Mapping[str, Any] | None = None,
        **changed: Any,
    ) -> str:
        """Return a signed token with changed claims."""
        signer = key or self.keys[kid or "first"]
        told = {"typ": "at+jwt", **({} if kid is None else {"kid": kid}), **(headers or {})}
        return jwt.encode(self.claims(**changed), signer, algorithm=alg or algorithm_of(signer), headers=told)


def algorithm_of(key: PrivateKey) -> str:
    """Return the usual algorithm of a key."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    return "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "EdDSA"


def public(key: PrivateKey) -> dict[str, Any]:
    """Return the public half of a key as it is published."""
    if isinstance(key, rsa.RSAPrivateKey):
        return dict(RSAAlgorithm.to_jwk(key.public_key(), as_dict=True))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return dict(ECAlgorithm.to_jwk(key.public_key(), as_dict=True))
    return dict(OKPAlgorithm.to_jwk(key.public_key(), as_dict=True))


def assembled(header: Mapping[str, Any], claims: Mapping[str, Any], signature: bytes = b"") -> str:
    """Return a token put together by hand, which no library would make."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
