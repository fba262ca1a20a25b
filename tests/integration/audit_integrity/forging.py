"""What somebody with all rights on the database, but without the signing key, can do to hide a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.audit.checkpoints import NO_HASH, Checkpoint, Seal, row_entry, seals_digest
from service.audit.encoding import name_of
from service.audit.merkle import Frontier, TenantsTree, leaf_hash, tenant_leaf
from service.audit.signing import Signer

FOREIGN = Signer(Ed25519PrivateKey.generate())
NOBODY = UUID(int=0)


def reforged(
    checkpoints: Sequence[Checkpoint], rows: Mapping[UUID, Sequence[bytes]], *, sign: bool
) -> list[Checkpoint]:
    """The checkpoints that rows as they are now would have: every hash right, the signature old or foreign."""
    trees: dict[UUID, Frontier] = {}
    tree, previous, forged = TenantsTree(), NO_HASH, list[Checkpoint]()
    for checkpoint in checkpoints:
        seals = []
        for seal in checkpoint.seals:
            frontier = trees.setdefault(seal.tenant_id, Frontier())
            first, entries = frontier.size, []
            last = seal is [one for c in checkpoints for one in c.seals if one.tenant_id == seal.tenant_id][-1]
            end = len(rows[seal.tenant_id]) if last else min(seal.size, len(rows[seal.tenant_id]))
            for line in rows[seal.tenant_id][first:end]:
                leaf = leaf_hash(line)
                frontier.append(leaf)
                entries.append(row_entry(name_of(line).id or NOBODY, leaf))
            seals.append(Seal(seal.tenant_id, seal.ordinal, first, frontier.size, frontier.root(), b"".join(entries)))
            tree.put(seal.ordinal, tenant_leaf(seal.tenant_id, frontier.size, frontier.root()))
        body = replace(
            checkpoint.body,
            previous=previous,
            tenants_root=tree.root(),
            rows=sum(frontier.size for frontier in trees.values()),
            seals=seals_digest(seals),
        )
        encoded = body.encoded()
        signatures = FOREIGN.sign(encoded) if sign else dict(checkpoint.signatures)
        forged.append(Checkpoint(body, encoded, signatures, tuple(seals)))
        previous = forged[-1].hash
    return forged
