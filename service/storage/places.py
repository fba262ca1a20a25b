"""The place of a memory in the line of its subjects: who stands beside it, told by one number."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from service.storage.stored import StoredMemory
from service.storage.tables import MemoryRow

#: Places in one line. A line that is full gives no more.
LINE: Final = 1 << 24
_LINE_BYTES: Final = 5
_m: Final[Any] = MemoryRow.__table__.c  # type: ignore[attr-defined]


def lined_up(connection: Connection, memories: Sequence[StoredMemory]) -> list[StoredMemory]:
    """Return memories that are about to be stored, each with the place behind the last of its subjects' line.

    Two transactions that add to one line at once may give out the same place, which makes neighbours of the same two.
    """
    wanted = Counter(line_of(memory) for memory in memories)
    if not wanted:
        return []
    start = func.unnest(literal(list(wanted), ARRAY(BigInteger))).column_valued("start")
    last = select(func.max(_m.place)).where(_m.place > start, _m.place < start + LINE).scalar_subquery()
    taken = connection.execute(select(start, last)).all()
    following = {line: count((highest or line) + 1) for line, highest in taken}
    placed = ((memory, next(following[line_of(memory)])) for memory in memories)
    return [replace(memory, place=place if place < line_of(memory) + LINE else None) for memory, place in placed]


def line_of(memory: StoredMemory) -> int:
    """Return where the line of a memory's subjects begins: those of the same user, agent, app and run stand in one."""
    subjects = (memory.user_id, memory.agent_id, memory.app_id, memory.run_id)
    digest = hashlib.sha256(b"".join(one.bytes if one else bytes(16) for one in subjects)).digest()
    # Below 2 ** 63, with the place in it, so that it is one number for the database and for the index.
    return (int.from_bytes(digest[:_LINE_BYTES], "big") >> 1) * LINE
