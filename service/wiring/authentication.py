"""Puts together what checks credentials."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from service.auth.authenticator import Authenticator
from service.auth.tokens import Tokens
from service.auth.watch import CredentialWatch

if TYPE_CHECKING:
    from service.wiring import Installation


def open_authenticator(installation: Installation, stack: ExitStack) -> Authenticator:
    """Return what checks credentials; until the stack closes it fetches an issuer's keys and hears of changes."""
    auth = installation.settings.auth
    tokens = None if auth.oidc.issuer is None else Tokens(installation.settings, installation.tenants)
    if tokens is not None:
        tokens.start()
    watch = None
    if auth.cache_seconds:
        watch = CredentialWatch(
            installation.database, trusted_seconds=auth.cache_seconds, also=installation.refusals.flush
        )
        watch.start()
        stack.callback(watch.stop)
    return Authenticator(
        installation.keys, installation.trail, cache_seconds=auth.cache_seconds, tokens=tokens, watch=watch
    )
