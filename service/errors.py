"""The error tree: each error carries the HTTP status and the stable code that every face answers with.

    MemvaultError
    ├── InvalidInput 400 ── ActingUserRequired, ExtractionUnavailable, LlmRequired, ReservedMetadata, ScopeRequired
    ├── Unauthenticated 401 ── InvalidToken
    ├── Forbidden 403 ── InsufficientScope
    ├── NotFound 404 ── MalformedId
    ├── Conflict 409 ── IdempotencyConflict, LegalHold, MinimumRetention
    ├── TooSlow 408
    ├── TooLarge 413 ── QuotaExceeded
    ├── TooManyRequests 429 ── TooManyWaiting
    ├── NotOffered 501
    ├── Unavailable 503 ── IndexUnavailable, RecordUnavailable (RecordBusy), StillStarting
    └── ConfigurationError (no status: the process does not start, exit code 2)

Messages are for users: what is wrong, where, what to do next. They never hold memory text, metadata or names.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Final
from uuid import UUID

from service.scope import Limit, Permission

_SHOWN: Final = 64


class MemvaultError(Exception):
    """The root of all errors that a face may answer with."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}


class InvalidInput(MemvaultError):
    """The request cannot be understood or breaks a limit; the same request will fail again."""

    status = 400
    code = "invalid_input"


class ScopeRequired(InvalidInput):
    """The call would touch everything; it must name a user, an agent, an app or a run."""

    code = "scope_required"


class ReservedMetadata(InvalidInput):
    """The metadata uses a key that the service keeps for itself."""

    code = "reserved_metadata_key"


class ActingUserRequired(InvalidInput):
    """A system agent's call on memories does not say for which user it is made."""

    code = "acting_user_required"


class ExtractionUnavailable(InvalidInput):
    """Extraction was asked for and no LLM is configured."""

    code = "extraction_unavailable"


class LlmRequired(InvalidInput):
    """What was asked for needs a language model, and none is configured."""

    code = "llm_required"


class Unauthenticated(MemvaultError):
    """No credential, or one that is not valid (any more)."""

    status = 401
    code = "unauthenticated"


class InvalidToken(Unauthenticated):
    """An access token that is not valid (any more), or not for this service; a new one may be."""

    code = "invalid_token"


class Forbidden(MemvaultError):
    """The credential is valid and may not do this."""

    status = 403
    code = "forbidden"


class InsufficientScope(Forbidden):
    """An access token lacks permissions that its client could ask the issuer for: `missing` has all of them."""

    code = "insufficient_scope"

    def __init__(self, detail: str, *, missing: frozenset[Permission]) -> None:
        super().__init__(detail)
        self.missing = missing


class NotFound(MemvaultError):
    """There is no such thing within the caller's scope; whether it exists elsewhere is not told."""

    status = 404
    code = "not_found"


class MalformedId(NotFound):
    """What stands where an id belongs is no id: it names nothing, and the trail has no id to keep of it."""


class Conflict(MemvaultError):
    """The request contradicts the present state."""

    status = 409
    code = "conflict"


class NameTaken(Conflict):
    """Something else of the tenant's has the name."""


class IdempotencyConflict(NameTaken):
    """The idempotency key was used before with another request."""

    code = "idempotency_key_reused"


class LegalHold(Conflict):
    """A legal hold covers what the call would delete or rewrite: nothing was done. `names` are the holds' names."""

    code = "legal_hold"

    def __init__(self, names: Sequence[str], *, hold_ids: Sequence[UUID] = (), memory_ids: Sequence[UUID] = ()) -> None:
        told = ", ".join(names)
        super().__init__(f"legal hold {told}: what it covers is neither deleted nor changed until it is released")
        self.names = tuple(names)
        self.hold_ids = tuple(hold_ids)
        self.memory_ids = tuple(memory_ids)


class TooSlow(MemvaultError):
    """The body of the request did not arrive in time."""

    status = 408
    code = "too_slow"


class MinimumRetention(Conflict):
    """A retention rule keeps what the call would delete: nothing was done. From `until` on it may be deleted."""

    code = "minimum_retention"

    def __init__(self, until: datetime, *, memory_ids: Sequence[UUID] = ()) -> None:
        super().__init__(f"minimum retention: a rule keeps it until {until.isoformat()}; nothing was done")
        self.until = until
        self.memory_ids = tuple(memory_ids)


class TooLarge(MemvaultError):
    """The body, a message or the number of items is over its limit."""

    status = 413
    code = "too_large"


class QuotaExceeded(TooLarge):
    """The tenant has as many memories, or as many bytes of them, as it may have: `limit` says which."""

    code = "quota_exceeded"

    def __init__(self, detail: str, *, limit: Limit) -> None:
        super().__init__(detail)
        self.limit = limit


class TooManyRequests(MemvaultError):
    """The caller is over a rate limit; the same request can succeed after `Retry-After` seconds."""

    status = 429
    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after: int, more: dict[str, str] | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, retry_after)), **(more or {})})


class TooManyWaiting(TooManyRequests):
    """As many adds of the tenant wait for the language model as may wait."""

    code = "too_many_waiting"
    limit = Limit.EVENTS_WAITING


class NotOffered(MemvaultError):
    """A call of the platform that this service does not offer; the detail says what to do instead."""

    status = 501
    code = "not_offered"


class Unavailable(MemvaultError):
    """A part that is needed is away; the same request can succeed later."""

    status = 503
    code = "unavailable"

    def __init__(self, detail: str, *, retry_after: int = 2) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class IndexUnavailable(Unavailable):
    """The index cannot answer; reads by id and writes go on."""

    code = "index_unavailable"


class RecordUnavailable(Unavailable):
    """Postgres cannot be reached, or the audit row could not be written: nothing was done."""

    code = "record_unavailable"


class RecordBusy(RecordUnavailable):
    """Two transactions were in each other's way and this one gave in: nothing was done, and again is likely to work."""

    code = "record_busy"


class KeyringUnavailable(Unavailable):
    """What is stored cannot be opened with the keys there are: the keyring is incomplete or another one's."""

    code = "keyring_unavailable"


class StillStarting(Unavailable):
    """The part that this call needs is still being loaded."""

    code = "starting"


class ConfigurationError(MemvaultError):
    """A setting is wrong: the process says so in one line and ends with exit code 2."""

    code = "configuration_error"


def shown(name: str) -> str:
    """Return an unknown name of a request as a message may quote it: 64 characters, none that a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in name[:_SHOWN])
