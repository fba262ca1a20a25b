"""The trail as canonical lines: streamed from the database in sealed order, written to an export and read from one.

An export is a file of lines. A row is its canonical line and nothing else; lines that begin with `{"_` say which tenant
the rows after them belong to and where its rows begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from uuid import UUID

import orjson
from sqlalchemy import text

from service.audit.encoding import LINE, ORDER
from service.audit.ledger import Ledger
from service.audit.verify import Base
from service.errors import ConfigurationError
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database

EXPORT_FORMAT: Final = "memvault-audit-export-1"
_ROWS: Final = text(f"SELECT {LINE} FROM audit WHERE tenant_id = :tenant ORDER BY {ORDER}")
_FETCH: Final = 5000
_CONTROL: Final = b'{"_'


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one tenant."""

    tenant_id: UUID
    base: Base
    lines: Iterator[bytes]


def stored_sections(database: Database, ledger: Ledger, tenants: Sequence[TenantId]) -> Iterator[Section]:
    """Yield the rows of each tenant from the database; read one section to its end before the next."""
    for tenant_id in tenants:
        drop = ledger.drops().get(tenant_id)
        base = Base() if drop is None else Base(drop.size, drop.peaks)
        yield Section(tenant_id, base, _stored_lines(database, tenant_id))


def write_export(file: IO[bytes], sections: Iterator[Section], *, progress: Callable[[int], None]) -> int:
    """Write an export and return how many rows it has; `progress` is told how many rows more were written."""
    file.write(orjson.dumps({"_export": EXPORT_FORMAT}) + b"\n")
    rows = 0
    for section in sections:
        head = {"_tenant": str(section.tenant_id), "dropped": section.base.size, "remains": section.base.peaks.hex()}
        file.write(orjson.dumps(head) + b"\n")
        written = 0
        for line in section.lines:
            file.write(line + b"\n")
            written += 1
        rows += written
        progress(written)
    file.write(orjson.dumps({"_end": rows}) + b"\n")
    return rows


def read_export(path: Path) -> Iterator[Section]:
    """Yield the sections of an export; read one to its end before the next.

    Raises:
        ConfigurationError: when the file is no export or was cut short while it was written.
    """
    try:
        with path.open("rb", buffering=1 << 20) as file:
            head = _control(file.readline(), path)
            if head is None or head.get("_export") != EXPORT_FORMAT:
                raise ConfigurationError(f"{path}: is not an export of the audit trail ({EXPORT_FORMAT})")
            reader = _Reader(file, path)
            while (section := reader.section()) is not None:
                yield section
                for _ in section.lines:
                    pass
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None


class _Reader:
    """Reads section after section."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._next = file.readline()

    def section(self) -> Section | None:
        """Return the next section, or None at the end."""
        head = _control(self._next, self._path)
        if head is None or "_end" in head:
            if head is None:
                raise ConfigurationError(f"{self._path}: has no end; the export was not finished")
            return None
        try:
            tenant_id = UUID(head["_tenant"])
            base = Base(int(head["dropped"]), bytes.fromhex(head["remains"]))
        except (KeyError, ValueError, TypeError):
            raise ConfigurationError(f"{self._path}: holds a line that is neither a row nor a tenant") from None
        return Section(tenant_id, base, self._lines())

    def _lines(self) -> Iterator[bytes]:
        for line in self._file:
            if line.startswith(_CONTROL):
                self._next = line
                return
            yield line[:-1] if line.endswith(b"\n") else line
        self._next = b""


def _control(line: bytes, path: Path) -> dict[str, Any] | None:
    if not line.startswith(_CONTROL):
        return None
    try:
        return dict(orjson.loads(line))
    except ValueError:
        raise ConfigurationError(f"{path}: holds a line that is neither a row nor a tenant") from None


def _stored_lines(database: Database, tenant_id: TenantId) -> Iterator[bytes]:
    with database.transaction(Scope.of(service_principal(tenant_id))) as connection:
        streamed = connection.execution_options(stream_results=True, max_row_buffer=_FETCH, yield_per=_FETCH)
        # The size once more: what a connection's options say of it holds for rows, and not for single columns of them.
        for batch in streamed.execute(_ROWS, {"tenant": tenant_id}).scalars().partitions(_FETCH):
            for line in batch:
                yield line.encode()
