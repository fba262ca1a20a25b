"""Settings of who is believed: API keys, and the access tokens of an issuer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from service.settings.base import Section, SecureUrl

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class Oidc(Section):
    """Access tokens of one OAuth or OpenID Connect issuer as credentials, beside API keys. Off without an issuer."""

    issuer: SecureUrl | None = Field(None, description="The issuer, exactly as its tokens say in `iss`. Not set: off.")
    audience: str | None = Field(
        None,
        min_length=1,
        description="What a token for the MCP endpoint must have in `aud`. Not set: `server.public_url` with `/mcp`.",
    )
    rest_audience: str | None = Field(
        None,
        min_length=1,
        description="What a token for the REST API must have in `aud`. Not set: `server.public_url`.",
    )
    jwks_url: SecureUrl | None = Field(
        None, description="URL of the issuer's signing keys. Not set: the one that the issuer's metadata names."
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authority that signed the issuer's certificate. Not set: the public ones."
    )
    timeout: float = Field(5.0, gt=0, le=30, description="Seconds that one request to the issuer may take.")
    algorithms: list[Algorithm] = Field(
        ["RS256", "ES256", "EdDSA"], min_length=1, description="Signature algorithms that are accepted."
    )
    leeway: float = Field(30.0, ge=0, le=300, description="Seconds by which the issuer's clock may differ from ours.")
    tenant_claim: str = Field(
        "tenant", min_length=1, description="Claim with the tenant's name or id; `a.b` reaches into an object."
    )
    user_claim: str = Field(
        "sub",
        min_length=1,
        description="Claim with the user, or a list of users, that the token is bound to; a token without is refused.",
    )
    bind_users: bool = Field(True, description="Off: tokens reach every user of their tenant, whatever they claim.")
    system_claim: str | None = Field(
        None,
        min_length=1,
        description="Claim that is `true` in tokens of system agents: those are bound to no user and name one in each "
        "call. Not set: there are none.",
    )
    scope_claim: str = Field("scope", min_length=1, description="Claim with the scopes: words in a string, or a list.")
    scope_map: dict[str, list[str]] = Field(
        default_factory=dict,
        description="What each scope of the issuer stands for: permissions or roles. Not empty: other scopes grant "
        "nothing. Empty: the scopes are the permissions themselves (`memory:read`).",
    )
    keys_fresh: float = Field(
        300.0,
        ge=1,
        le=86_400,
        description="Seconds after which signing keys are used no more without asking the issuer again; they are "
        "fetched in the background from half of that on.",
    )
    keys_stale: float = Field(
        86_400.0, ge=1, description="Seconds that known signing keys are used while the issuer does not answer."
    )
    refetch_wait: float = Field(
        10.0, ge=0, le=300, description="Least seconds between two requests for signing keys, whatever tokens arrive."
    )


class Auth(Section):
    """How credentials are checked."""

    cache_seconds: float = Field(
        2.0,
        ge=0,
        le=5,
        description="Seconds that a checked key is trusted without asking whether anything has changed; the longest "
        "a revoked key goes on, on every replica.",
    )
    oidc: Oidc = Field(default_factory=Oidc)
