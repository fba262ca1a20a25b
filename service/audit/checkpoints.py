"""Checkpoints as documents: what is signed, how it is written on one line, and how it is read back. Pure.

A checkpoint is a signed body and, beside it, the seals whose digest stands in the body: which rows of which tenants it
added to the trees. Each body holds the hash of the one before, so that a signature vouches for all that went before.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, ClassVar, Final
from uuid import UUID

import orjson

from service.audit.merkle import HASH_BYTES

FORMAT: Final = "memvault-checkpoint-1"
#: The `previous` of the first checkpoint.
NO_HASH: Final = "0" * 64
#: Of each sealed row its id and the head of its leaf hash are told, so that a tampered one can be named.
ID_BYTES: Final = 16
_HEAD_BYTES: Final = 8
ROW_BYTES: Final = ID_BYTES + _HEAD_BYTES


class BadDocument(ValueError):
    """A line that is not a checkpoint of this format."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What a checkpoint sealed of one tenant: rows `first` to `size` - 1; `rows` names each."""

    tenant_id: UUID
    ordinal: int
    first: int
    size: int
    root: bytes
    rows: bytes


@dataclass(frozen=True, slots=True)
class Statement:
    """What a checkpoint declares beside the trees.

    `trail:dropped`: retention dropped the first `size` rows of the tenant, all older than `keep_days`.
    `trail:restored`: the database was restored to checkpoint `resumes`; the later ones up to this are void.
    """

    what: str
    tenant_id: UUID | None = None
    size: int = 0
    keep_days: int = 0
    resumes: int = 0

    DROPPED: ClassVar[str] = "trail:dropped"
    RESTORED: ClassVar[str] = "trail:restored"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the database stood when it was sealed: which cluster, which timeline of it, how far in the trail's order.

    A database that is restored, by whatever means, stands elsewhere or earlier; one whose newest checkpoints were only
    deleted does not. `system` is 0 where the database does not tell it.
    """

    system: int
    timeline: int
    horizon: int

    def went_back_from(self, later: Cluster) -> bool:
        """Tell whether this is an earlier state of the database that stood there, or one made of its backup."""
        return (
            self.horizon < later.horizon
            or self.timeline != later.timeline
            or (0 not in (self.system, later.system) and self.system != later.system)
        )


@dataclass(frozen=True, slots=True)
class Body:
    """What is signed. `cluster` is missing in the checkpoints of older releases."""

    installation: UUID
    number: int
    at: datetime
    previous: str
    tenants: int
    tenants_root: bytes
    rows: int
    seals: str
    statements: tuple[Statement, ...] = ()
    cluster: Cluster | None = None

    def encoded(self) -> bytes:
        """Return the bytes that are signed: JSON with sorted keys and no spaces."""
        return _json(
            {
                "format": FORMAT,
                "installation": str(self.installation),
                "number": self.number,
                "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
                "previous": self.previous,
                "tenants": self.tenants,
                "tenants_root": self.tenants_root.hex(),
                "rows": self.rows,
                "seals": self.seals,
                "statements": [_statement_fields(statement) for statement in self.statements],
            }
            | ({} if self.cluster is None else {"cluster": asdict(self.cluster)})
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed body with its seals; `seals` is empty where only the signed part is at hand."""

    body: Body
    encoded: bytes
    signatures: Mapping[str, str]
    seals: tuple[Seal, ...] = ()

    @property
    def hash(self) -> str:
        """What the next checkpoint says of this one."""
        return sha256(self.encoded).hexdigest()

    def line(self) -> bytes:
        """Return the checkpoint as one line of JSON, without the line's end."""
        return orjson.dumps(
            {
                "body": self.encoded.decode(),
                "signatures": dict(self.signatures),
                "seals": [_seal_fields(seal) for seal in self.seals],
            }
        )


def seals_digest(seals: Sequence[Seal]) -> str:
    """Return what the body says of the seals."""
    return sha256(_json([_seal_fields(seal) for seal in seals])).hexdigest()


def row_entry(row_id: UUID, leaf: bytes) -> bytes:
    """Return what a seal tells of a row."""
    return row_id.bytes + leaf[:_HEAD_BYTES]


def split_entry(rows: bytes | bytearray, index: int) -> tuple[UUID, bytes]:
    """Return id and head of the leaf hash of the row `index` of a seal."""
    entry = rows[index * ROW_BYTES : (index + 1) * ROW_BYTES]
    return UUID(bytes=bytes(entry[:ID_BYTES])), bytes(entry[ID_BYTES:])


def matches(leaf: bytes, head: bytes) -> bool:
    """Tell whether a leaf hash has the head that its seal tells."""
    return leaf[:_HEAD_BYTES] == head


def parse_line(line: bytes) -> Checkpoint:
    """Read a checkpoint from its line. Nothing is verified.

    Raises:
        BadDocument: when it is none.
    """
    try:
        found: Any = orjson.loads(line)
        seals = tuple(_seal(fields) for fields in found["seals"])
        signatures = {str(name): str(value) for name, value in found["signatures"].items()}
        return parse_body(found["body"].encode(), signatures, seals)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadDocument("not a checkpoint") from None


def parse_body(encoded: bytes, signatures: Mapping[str, str], seals: tuple[Seal, ...] = ()) -> Checkpoint:
    """Read a checkpoint from its signed bytes.

    Raises:
        BadDocument: when they are none.
    """
    try:
        fields: Any = orjson.loads(encoded)
        if fields["format"] != FORMAT:
            raise BadDocument(f"a checkpoint of another format than {FORMAT}")
        body = Body(
            installation=UUID(fields["installation"]),
            number=int(fields["number"]),
            at=datetime.fromisoformat(fields["at"]),
            previous=str(fields["previous"]),
            tenants=int(fields["tenants"]),
            tenants_root=bytes.fromhex(fields["tenants_root"]),
            rows=int(fields["rows"]),
            seals=str(fields["seals"]),
            statements=tuple(_statement(entry) for entry in fields["statements"]),
            cluster=_cluster(fields.get("cluster")),
        )
    except BadDocument:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadDocument("not a checkpoint") from None
    return Checkpoint(body, encoded, signatures, seals)


def _seal_fields(seal: Seal) -> dict[str, Any]:
    return {
        "tenant": str(seal.tenant_id),
        "ordinal": seal.ordinal,
        "first": seal.first,
        "size": seal.size,
        "root": seal.root.hex(),
        "rows": b64encode(seal.rows).decode(),
    }


def _seal(fields: Any) -> Seal:
    seal = Seal(
        tenant_id=UUID(fields["tenant"]),
        ordinal=int(fields["ordinal"]),
        first=int(fields["first"]),
        size=int(fields["size"]),
        root=bytes.fromhex(fields["root"]),
        rows=b64decode(fields["rows"], validate=True),
    )
    if len(seal.root) != HASH_BYTES or len(seal.rows) != ROW_BYTES * (seal.size - seal.first):
        raise BadDocument("a seal that does not add up")
    return seal


def _statement_fields(statement: Statement) -> dict[str, Any]:
    if statement.what == Statement.RESTORED:
        return {"what": statement.what, "resumes": statement.resumes}
    return {
        "what": statement.what,
        "tenant": str(statement.tenant_id),
        "size": statement.size,
        "keep_days": statement.keep_days,
    }


def _statement(fields: Any) -> Statement:
    if fields["what"] == Statement.RESTORED:
        return Statement(Statement.RESTORED, resumes=int(fields["resumes"]))
    if fields["what"] == Statement.DROPPED:
        return Statement(
            Statement.DROPPED,
            tenant_id=UUID(fields["tenant"]),
            size=int(fields["size"]),
            keep_days=int(fields["keep_days"]),
        )
    raise BadDocument("a statement of an unknown kind")


def _cluster(fields: Any) -> Cluster | None:
    if fields is None:
        return None
    return Cluster(int(fields["system"]), int(fields["timeline"]), int(fields["horizon"]))


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
