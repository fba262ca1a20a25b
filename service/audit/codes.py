"""The words that details of audit events are made of: why a call was refused, what was changed, read or erased."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a call was refused."""

    PERMISSION = "permission"
    USER = "user"
    WIDER = "wider"
    USERS = "users"
    CONNECTOR = "connector"
    EXPIRY = "expiry"
    REVOKED = "revoked"
    BOUND = "bound"
    RATE = "rate"
    ACTING = "acting"
    MALFORMED = "malformed"
    HOLD = "hold"
    MINIMUM = "minimum"
    PERSON = "person"
    SAME_PERSON = "same_person"
    TAKEN = "taken"
    CONFLICT = "conflict"


class Changed(StrEnum):
    """What of a memory an update changed."""

    TEXT = "text"
    METADATA = "metadata"
    EXPIRES_ON = "expires_on"
    CREATED_AT = "created_at"


class Covers(StrEnum):
    """What a legal hold was placed on."""

    SUBJECTS = "subjects"
    FILTER = "filter"
    MEMORIES = "memories"


class Filter(StrEnum):
    """By what the trail was read."""

    SINCE = "from"
    UNTIL = "to"
    PRINCIPAL = "principal"
    SUBJECT = "subject"
    EVENT = "event"
    ACTIVITY = "activity"
    MEMORY = "memory"
    OUTCOME = "outcome"
    REQUEST = "request"
    CONNECTOR = "connector"


class View(StrEnum):
    """What of the trail was asked for."""

    ROWS = "rows"
    KNOWN = "known"
    TAIL = "tail"


class ExportFormat(StrEnum):
    """The line format of an export."""

    JSONL = "jsonl"
    OCSF = "ocsf"


class MatchBy(StrEnum):
    """Against what a value was held."""

    ROW = "row"
    MEMORY = "memory"
    SUBJECT = "subject"


class Erased(StrEnum):
    """What is erased."""

    USER = "user"
    AGENT = "agent"
    APP = "app"
    RUN = "run"
    CONNECTOR = "connector"
    TENANT = "tenant"


class ExportPart(StrEnum):
    """What of an export was read."""

    LINES = "lines"
    MEMORIES = "memories"
    NOTHING = "nothing"


class ImportSource(StrEnum):
    """Where imported memories come from."""

    EXPORT = "memvault_export"
    PLATFORM = "mem0_platform"
    QDRANT = "mem0_qdrant"
    PGVECTOR = "mem0_pgvector"
    OPENMEMORY = "openmemory"
