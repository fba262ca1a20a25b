"""Proves that one row is under a signed checkpoint, so that a third party can check it without the service."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from service.audit.checkpoints import split_entry
from service.audit.encoding import LINE, ORDER
from service.audit.ledger import Ledger
from service.audit.merkle import Frontier, TenantsTree, inclusion_path, leaf_hash, tenant_leaf
from service.errors import Conflict, NotFound
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database

PROOF_FORMAT: Final = "memvault-proof-1"
_PLACE: Final = text("SELECT xid, seq FROM audit WHERE tenant_id = :tenant AND id = :id")
_SEALED: Final = text(
    f"SELECT {LINE} FROM audit WHERE tenant_id = :tenant AND (xid, seq) > (:xid, :seq) ORDER BY {ORDER} LIMIT :limit"
)


class Proofs:
    """Makes proofs from the rows and the seals."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    def prove(self, tenant_id: TenantId, row_id: UUID) -> dict[str, Any]:
        """Return the proof of a row: its line, the path to its tenant's root, and the path to the signed root.

        Raises:
            NotFound: when the tenant's trail has no such row.
            Conflict: when no checkpoint covers it yet, or the rows are not what was sealed.
        """
        scope = Scope.of(service_principal(tenant_id))
        with self._database.transaction(scope) as connection:
            place = connection.execute(_PLACE, {"tenant": tenant_id, "id": row_id}).first()
        if place is None:
            raise NotFound(f"the audit trail of this tenant has no row {row_id}")
        found = self._ledger.seal_of(tenant_id, (place.xid, place.seq))
        if found is None:
            raise Conflict(f"the row {row_id} is not sealed yet; try again in a few seconds")
        seal, number, before = found
        after = (-1, 0) if before is None else (before.last_xid, before.last_seq)
        with self._database.transaction(scope) as connection:
            limits = {"tenant": tenant_id, "xid": after[0], "seq": after[1], "limit": seal.size - seal.first}
            lines = [str(line).encode() for line in connection.execute(_SEALED, limits).scalars()]
        leaves = [leaf_hash(line) for line in lines]
        frontier = Frontier() if before is None else before.frontier()
        index = next((i for i in range(len(lines)) if split_entry(seal.rows, i)[0] == row_id), None)
        if index is None or frontier.size != seal.first or len(lines) != seal.size - seal.first:
            raise _changed(row_id)
        path = inclusion_path(frontier, leaves, seal.first + index)
        for leaf in leaves:
            frontier.append(leaf)
        if frontier.root() != seal.root:
            raise _changed(row_id)
        checkpoint = self._ledger.find(number)
        tree = self._tree(number)
        if checkpoint is None or tree.root() != checkpoint.body.tenants_root:
            raise _changed(row_id)
        return {
            "format": PROOF_FORMAT,
            "row": lines[index].decode(),
            "tenant_id": str(tenant_id),
            "position": seal.first + index,
            "size": seal.size,
            "path": [step.hex() for step in path],
            "ordinal": seal.ordinal,
            "tenants": len(tree),
            "tenants_path": [step.hex() for step in tree.path(seal.ordinal)],
            "checkpoint": checkpoint.encoded.decode(),
            "signatures": dict(checkpoint.signatures),
        }

    def _tree(self, number: int) -> TenantsTree:
        tree = TenantsTree()
        with self._database.tenant_blind() as connection:
            for tip in self._ledger.tips(connection, number):
                tree.put(tip.ordinal, tenant_leaf(tip.tenant_id, tip.size, tip.root))
        return tree


def _changed(row_id: UUID) -> Conflict:
    return Conflict(f"the rows around {row_id} are not what was sealed; run `memvault audit verify`")
