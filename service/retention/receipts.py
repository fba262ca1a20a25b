"""Receipts of erasures: what was done, checked and could not be, without content, signed, and verified offline.

A receipt is `{"receipt": {…}, "signatures": {key id: base64}}`. Signed is the text `memvault erasure receipt 1`, a line
feed, and the inner object as JSON with sorted keys and no spaces (UTF-8). The keys are those of the audit trail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from service.audit.signing import Signer, TrustedKeys
from service.retention.ledger import Erasure, ErasureKind

TYPE: Final = "memvault-erasure-receipt/1"
_HEAD: Final = b"memvault erasure receipt 1\n"
#: What became of the key of what was erased.
DESTROYED: Final = "destroyed"
#: An erasure of a connector destroys nobody's key: the other memories of the same people stay readable.
NONE_OF_ITS_OWN: Final = "has none of its own"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked for after the erasure, and how much of it was there."""

    at: datetime
    tables: Mapping[str, int]
    index_points: int
    key: str

    @property
    def left(self) -> int:
        """How much was found: rows, points, and a key that is not known to be destroyed."""
        keys = 0 if self.key in (DESTROYED, NONE_OF_ITS_OWN) else 1
        return sum(self.tables.values()) + self.index_points + keys


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a receipt is good, and if not, why."""

    ok: bool
    reason: str | None
    receipt: Mapping[str, Any]


def body_of(
    erasure: Erasure,
    *,
    at: datetime,
    checked: Checked,
    physical: Mapping[str, Any],
    remains: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what a receipt says."""
    return {
        "type": TYPE,
        "erasure_id": str(erasure.id),
        "tenant_id": str(erasure.tenant_id),
        "kind": erasure.kind.value,
        "subject_id": None if erasure.subject_id is None else str(erasure.subject_id),
        "requested_at": erasure.requested_at.isoformat(),
        "begun_at": erasure.begun_at.isoformat() if erasure.begun_at else None,
        "rows_removed_at": erasure.removed_at.isoformat() if erasure.removed_at else None,
        "completed_at": at.isoformat(),
        "removed": dict(erasure.removed),
        "sealed_under_other_keys": erasure.sealed_elsewhere,
        "checked": {
            "at": checked.at.isoformat(),
            "rows_left": dict(checked.tables),
            "index_points_left": checked.index_points,
            "key": checked.key,
        },
        "physical": dict(physical),
        "remains": [dict(one) for one in remains],
    }


def what_remains(
    erasure: Erasure,
    *,
    at: datetime,
    backup_days: int | None,
    keyring_backup_days: int | None,
    archived: bool,
    rows: bool = False,
) -> list[dict[str, Any]]:
    """Return what an erasure cannot reach or check, each with what it means and until when, where that is known.

    `rows`: the keyring is in a database.
    """
    data_until, keys_until = _until(at, backup_days), _until(at, keyring_backup_days)
    found: list[dict[str, Any]] = []
    if erasure.kind is not ErasureKind.CONNECTOR:
        found.append(
            {
                "what": "data backups made before, together with a keyring backup made before",
                "readable": "only with both; the present keyring opens none of it",
                "until": keys_until,
                "setting": "erasure.keyring_backup_days",
            }
        )
        if rows:
            found.append(
                {
                    "what": "the write-ahead log, its archive and replicas of the keyring's database",
                    "readable": "the destroyed key, wrapped; only with the wrapping key",
                    "until": keys_until,
                    "setting": "erasure.keyring_backup_days",
                }
            )
    if erasure.kind is ErasureKind.CONNECTOR or erasure.sealed_elsewhere:
        found.append(
            {
                "what": "data backups made before: memories whose key belongs to a person that stays",
                "readable": "yes, with the present keyring",
                "until": data_until,
                "setting": "erasure.backup_days",
            }
        )
    if archived:
        found.append(
            {
                "what": "the archived write-ahead log and replicas of the database server",
                "readable": "as the data backups",
                "until": data_until,
                "setting": "erasure.backup_days",
            }
        )
    found.append(
        {
            "what": "freed blocks of the file system and of the drive",
            "readable": "ciphertext, until they are written over",
            "until": None,
            "setting": None,
        }
    )
    return found


def sign(body: Mapping[str, Any], signer: Signer) -> dict[str, Any]:
    """Return the signed receipt."""
    return {"receipt": dict(body), "signatures": signer.sign(encoded(body))}


def verify(document: Any, trusted: TrustedKeys) -> Verdict:
    """Tell whether a document is a receipt that a trusted key signed, as it was signed."""
    body = document.get("receipt") if isinstance(document, dict) else None
    signatures = document.get("signatures") if isinstance(document, dict) else None
    if not isinstance(body, dict) or not isinstance(signatures, dict) or body.get("type") != TYPE:
        return Verdict(False, "this is no erasure receipt", {})
    if not trusted.accept(encoded(body), {str(name): str(one) for name, one in signatures.items()}):
        return Verdict(False, "no trusted key signed this, or it was changed since", body)
    return Verdict(True, None, body)


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed."""
    return _HEAD + orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def _until(at: datetime, days: int | None) -> str | None:
    return None if days is None else (at + timedelta(days=days)).date().isoformat()
