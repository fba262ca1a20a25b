"""Puts together what checks credentials, and what writes down who was refused."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from service.auth.authenticator import Authenticator
from service.auth.tokens import Tokens
from service.auth.watch import CredentialWatch
from service.errors import MemvaultError
from service.tenants.refusals import Refusals
from service.ticking import Ticker

if TYPE_CHECKING:
    from service.wiring import Installation

_log = logging.getLogger("memvault.auth")

#: Seconds between two looks at whether refusals that were counted are due; what is not due asks nothing.
_LOOK_EVERY: Final = 1.0


def open_authenticator(installation: Installation, stack: ExitStack, *, faces: bool) -> Authenticator:
    """Return what checks credentials.

    Until the stack closes it fetches an issuer's keys, if there are `faces` that tokens come to, hears of changes, and
    refusals that were counted are written down, those of limits too; what is left then is written when it closes.
    """
    auth = installation.settings.auth
    tokens = None
    if faces and auth.oidc.issuer is not None:
        tokens = Tokens(installation.settings, installation.tenants)
    if tokens is not None:
        tokens.start()
    watch = None
    if auth.cache_seconds:
        watch = CredentialWatch(installation.database, trusted_seconds=auth.cache_seconds)
        watch.start()
        stack.callback(watch.stop)
    authenticator = Authenticator(
        installation.keys,
        installation.trail,
        cache_seconds=auth.cache_seconds,
        tokens=tokens,
        watch=watch,
        tokenless="auth.oidc.issuer is not set" if faces else "no token comes to a process that serves nobody",
    )
    stack.callback(_flush, authenticator, installation.refusals, at_once=True)
    ticker = Ticker("memvault-refusals", _LOOK_EVERY, lambda: _flush(authenticator, installation.refusals))
    ticker.start()
    stack.callback(ticker.stop)
    return authenticator


def _flush(authenticator: Authenticator, refusals: Refusals, *, at_once: bool = False) -> None:
    """Write down what was refused; neither kind waits for the other."""
    for flush in (authenticator.flush, refusals.flush):
        try:
            flush(at_once=at_once)
        except MemvaultError as error:
            # Until the end they stay counted, and the next turn tries again.
            if at_once:
                _log.warning("refusals could not be written to the trail", extra={"error": error.code})
        except Exception as error:
            _log.error("refusals could not be written to the trail", extra={"error": type(error).__name__})
