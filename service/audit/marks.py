"""What a verifier keeps of each checkpoint and seal while it reads them all: packed, the same whatever was sealed.

A trail has millions of them after a while. So their signed bytes, their signatures and what their seals tell of each
row are not kept: what is needed of those is read once more, from where it stands.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct, error
from typing import Final, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from service.audit.checkpoints import Checkpoint, Seal, Statement, seals_digest
from service.audit.merkle import HASH_BYTES
from service.errors import Unavailable

_MARK: Final = Struct("<B32s32s32sqqqqI")
_SEAL: Final = Struct("<qIqqq32s")
_PAGE: Final = 256
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST: Final = (1 << 63) - 1
#: Stands for what is no hash in the form that hashes are written in, so that it equals none.
_NO_DIGEST: Final = b"\xff" * HASH_BYTES
CHANGED: Final = "the checkpoints were changed while they were read"


@runtime_checkable
class Source(Protocol):
    """Where checkpoints stand, to be gone through and to be read once more."""

    def places(self) -> Iterator[tuple[int, Checkpoint | None]]:
        """Yield each checkpoint with the place that it is read from again.

        None stands for what is no checkpoint any more where one has to be; its place is its number then.
        """

    def at(self, place: int) -> Checkpoint:
        """Read the checkpoint at a place once more.

        Raises:
            Unavailable: when there is none any more.
        """


class Listed:
    """Checkpoints that are at hand."""

    def __init__(self, checkpoints: Iterable[Checkpoint]) -> None:
        self._checkpoints = list(checkpoints)

    def places(self) -> Iterator[tuple[int, Checkpoint]]:
        """Yield each with its place in the list."""
        yield from enumerate(self._checkpoints)

    def at(self, place: int) -> Checkpoint:
        """Return the one at a place."""
        return self._checkpoints[place]


class Flag:
    """What is known of a checkpoint. One without `PRESENT` is none."""

    PRESENT = 1
    #: It has seals, and they are the ones that its body names (none, if it names none).
    SEALED = 2
    FITS = 4
    #: Only the database has it, or only the database has its seals: there it is read again.
    STORED = 8
    LENT = 16
    #: The database has one of its number.
    SEEN = 32
    VOID = 64


class Mark(NamedTuple):
    """A checkpoint: where it stands, and where its seals are among the packed ones."""

    flags: int
    hash: bytes
    previous: bytes
    tenants_root: bytes
    at: int
    rows: int
    place: int
    seals: int
    seal_count: int

    @property
    def time(self) -> datetime:
        """When it was signed."""
        return _EPOCH + timedelta(microseconds=self.at)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A seal without what it tells of its rows, with the checkpoint that it belongs to."""

    number: int
    at: datetime
    first: int
    size: int
    root: bytes


class Marks:
    """Checkpoints by number, of one source or of two."""

    def __init__(self, seals: PackedSeals | None = None) -> None:
        """With `seals` their seals are kept beside those of others."""
        self.seals = PackedSeals() if seals is None else seals
        self.statements: dict[int, tuple[Statement, ...]] = {}
        # In pages, since numbers have no gaps but where something is wrong.
        self._pages: dict[int, bytearray] = {}

    def find(self, number: int) -> Mark | None:
        """Return the mark of a number, or None."""
        page = self._pages.get(number // _PAGE)
        if page is None:
            return None
        mark = Mark._make(_MARK.unpack_from(page, number % _PAGE * _MARK.size))
        return mark if mark.flags else None

    def take(self, place: int, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint instead of what had its number."""
        body = checkpoint.body
        seals = self.seals.add(body.number, checkpoint.seals) if _fits(checkpoint) else None
        flags = Flag.PRESENT | (Flag.SEALED if checkpoint.seals else 0) | (0 if seals is None else Flag.FITS)
        at = body.at if body.at.tzinfo is not None else body.at.replace(tzinfo=UTC)
        mark = Mark(
            flags=flags,
            hash=bytes.fromhex(checkpoint.hash),
            previous=_digest(body.previous),
            tenants_root=_digest(body.tenants_root.hex()),
            at=(at - _EPOCH) // timedelta(microseconds=1),
            rows=max(0, min(body.rows, _MOST)),
            place=place,
            seals=seals or 0,
            seal_count=0 if seals is None else len(checkpoint.seals),
        )
        self._put(body.number, mark)
        self.statements.pop(body.number, None)
        if body.statements:
            self.statements[body.number] = body.statements

    def get(self, number: int) -> Mark:
        """Return the mark of a number that is there."""
        mark = self.find(number)
        assert mark is not None
        return mark

    def flag(self, number: int, flag: int) -> None:
        """Note something of a checkpoint."""
        mark = self.get(number)
        self._put(number, mark._replace(flags=mark.flags | flag))

    def lend(self, place: int, stored: Checkpoint) -> None:
        """Take the database's copy of an exported checkpoint that came without its seals."""
        self.take(place, stored)
        self.flag(stored.body.number, Flag.LENT)

    def adopt(self, number: int, others: Marks) -> None:
        """Take a checkpoint that only the database has."""
        self._put(number, others.get(number))
        self.flag(number, Flag.STORED)
        if number in others.statements:
            self.statements[number] = others.statements[number]

    def highest(self) -> int | None:
        """Return the highest number, or None without any."""
        return next(self.numbers(reverse=True), None)

    def remove(self, number: int) -> None:
        """Forget a checkpoint."""
        page = self._pages[number // _PAGE]
        page[number % _PAGE * _MARK.size] = 0
        self.statements.pop(number, None)

    def numbers(self, first: int | None = None, end: int | None = None, *, reverse: bool = False) -> Iterator[int]:
        """Yield the numbers from `first` to below `end` in order; what is taken or removed meanwhile is not seen."""
        for key in sorted(self._pages, reverse=reverse):
            page, base = bytes(self._pages[key][:: _MARK.size]), key * _PAGE
            if (first is not None and base + _PAGE <= first) or (end is not None and base >= end):
                continue
            order = range(_PAGE - 1, -1, -1) if reverse else range(_PAGE)
            for index in order:
                if page[index] and (first is None or base + index >= first) and (end is None or base + index < end):
                    yield base + index

    def _put(self, number: int, mark: Mark) -> None:
        page = self._pages.get(number // _PAGE)
        if page is None:
            page = self._pages[number // _PAGE] = bytearray(_PAGE * _MARK.size)
        _MARK.pack_into(page, number % _PAGE * _MARK.size, *mark)


class PackedSeals:
    """The seals of many checkpoints, without what they tell of each row."""

    def __init__(self) -> None:
        self._records = bytearray()
        self._tenants: list[UUID] = []
        self._index: dict[UUID, int] = {}

    def add(self, number: int, seals: Sequence[Seal]) -> int | None:
        """Keep seals of a checkpoint and return the place of the first, or None for such as nobody would make."""
        place = len(self._records) // _SEAL.size
        packed = bytearray()
        try:
            for seal in seals:
                tenant = self._index.setdefault(seal.tenant_id, len(self._tenants))
                if tenant == len(self._tenants):
                    self._tenants.append(seal.tenant_id)
                packed += _SEAL.pack(number, tenant, seal.ordinal, seal.first, seal.size, seal.root)
        except error:
            return None
        self._records += packed
        return place

    def of(self, place: int) -> tuple[int, UUID, int, int, int, bytes]:
        """Return number, tenant, ordinal, first, size and root of the seal at a place."""
        number, tenant, ordinal, first, size, root = _SEAL.unpack_from(self._records, place * _SEAL.size)
        return number, self._tenants[tenant], ordinal, first, size, root


class TenantSeals:
    """The seals of one tenant, in order."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._places = array("q")

    def append(self, place: int) -> None:
        """Add the packed seal at a place."""
        self._places.append(place)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Numbered:
        number, _, _, first, size, root = self._marks.seals.of(self._places[index])
        return Numbered(number, self._marks.get(number).time, first, size, root)

    def __iter__(self) -> Iterator[Numbered]:
        return (self[index] for index in range(len(self)))


def read_again(source: Source, place: int, digest: bytes) -> Checkpoint:
    """Read a checkpoint once more.

    Raises:
        Unavailable: when another one stands there, or none.
    """
    found = source.at(place)
    if bytes.fromhex(found.hash) != digest:
        raise Unavailable(CHANGED)
    return found


def _fits(checkpoint: Checkpoint) -> bool:
    try:
        return seals_digest(checkpoint.seals) == checkpoint.body.seals
    except TypeError:
        # Numbers that JSON has no room for; nobody signed them.
        return False


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return _NO_DIGEST
    return digest if len(digest) == HASH_BYTES and digest.hex() == text else _NO_DIGEST
