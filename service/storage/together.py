"""Seals what tells of some subjects under the tenant's key and all of theirs: without one of them it does not open.

An older backup has it too. Under the tenant's key alone, which stays, it would still say there who was erased since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from service.storage.encryption import CannotOpen, Cipher, Place
from service.storage.keyring import Keyring


def seal_together(keyring: Keyring, own: Cipher, subject_ids: Sequence[UUID], plain: bytes, place: Place) -> bytes:
    """Return the sealed value; `own` is the cipher of the tenant.

    Raises:
        KeyDestroyed: when one of the subjects is erased.
    """
    sealed = own.seal(plain, place)
    for subject_id in subject_ids:
        sealed = keyring.subject(place.tenant_id, subject_id).seal(sealed, _layer(place, subject_id))
    return sealed


def open_together(keyring: Keyring, own: Cipher, subject_ids: Sequence[UUID], sealed: bytes, place: Place) -> bytes:
    """Return what was sealed; the subjects are the same, in the same order.

    Raises:
        KeyDestroyed: when one of the subjects is erased.
        CannotOpen: as `Cipher.open`.
    """
    outermost = True
    for subject_id in reversed(subject_ids):
        try:
            sealed = keyring.subject(place.tenant_id, subject_id).open(sealed, _layer(place, subject_id))
        except CannotOpen:
            if not outermost:
                raise
            # By a release before this one, under the tenant's key alone.
            break
        outermost = False
    return own.open(sealed, place)


def _layer(place: Place, subject_id: UUID) -> Place:
    return replace(place, column=f"{place.column} of {subject_id}")
