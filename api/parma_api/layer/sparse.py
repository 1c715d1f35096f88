"""Sparse files: where the data in the stream belongs. Old GNU maps, and PAX maps 0.0, 0.1 and 1.0.

Sources: GNU tar manual, "Storing Sparse Files" and tar.h (struct sparse, sp_array); layer format, section 4.6.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from parma_api.layer.errors import TarHeaderError, TarTruncatedError
from parma_api.layer.header import BLOCK
from parma_api.layer.pax import SPARSE_MAP, Records
from parma_api.layer.scalar import decimal, number

MAX_MAP = 1 << 20
"""Bytes of extension blocks of an old GNU map; entries, and digits of one number, of a 1.0 map."""

_ENTRY = 24
_HEADER_MAP = (386, 4)
_EXTENSION_MAP = (0, 21)
_REAL_SIZE = slice(483, 495)


class SparseMap:
    """Fragments (offset, length) in order. Two numbers of eight bytes each: a map can have a million of them."""

    def __init__(self, numbers: array[int]) -> None:
        self._numbers = numbers

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._numbers[::2], self._numbers[1::2], strict=True))

    @property
    def data_size(self) -> int:
        """Bytes of data that the fragments hold together."""
        return sum(self._numbers[1::2])

    def check(self, real_size: int) -> None:
        """Raises TarHeaderError unless the fragments rise, do not overlap and lie within `real_size`."""
        before = 0
        for offset, length in self:
            if length < 0 or offset < before or offset + length > real_size:
                raise TarHeaderError(
                    "a sparse map's fragments overlap, fall back or pass the file's end"
                )
            before = offset + length
        if real_size < 0:
            raise TarHeaderError("a sparse file's size is negative")


def old_gnu_map(block: bytes, read_block: Callable[[], bytes]) -> tuple[int, SparseMap]:
    """Real size and map of an `S` header; more of the map may stand in blocks behind it.

    Raises TarHeaderError, or TarTruncatedError if a block that is announced is missing.
    """
    real_size = number(block[_REAL_SIZE])
    numbers = array("q")
    (start, count), extensions = _HEADER_MAP, 0
    while True:
        end = start + count * _ENTRY
        for at in range(start, end, _ENTRY):
            if not block[at]:
                break
            numbers.extend((number(block[at : at + 12]), number(block[at + 12 : at + _ENTRY])))
        if not block[end]:
            return real_size, SparseMap(numbers)
        extensions += BLOCK
        if extensions > MAX_MAP:
            raise TarHeaderError("a sparse map has more than 1 MiB")
        block = read_block()
        if len(block) < BLOCK:
            raise TarTruncatedError("the stream ends inside a sparse map")
        start, count = _EXTENSION_MAP


def pax_version(records: Records) -> tuple[int, int] | None:
    """(0, 1), which 0.0 counts as too, or (1, 0) for a file that PAX records call sparse; else None."""
    major, minor = records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b"")
    if (major, minor) in ((b"0", b"0"), (b"0", b"1")):
        return 0, 1
    if (major, minor) == (b"1", b"0"):
        return 1, 0
    if not major and not minor and records.get(SPARSE_MAP):
        return 0, 1
    return None


def pax_real_size(records: Records, otherwise: int) -> int:
    """The size with holes. Raises TarHeaderError."""
    text = records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize")
    return _integer(text) if text else otherwise


def map_of_records(records: Records) -> SparseMap:
    """The map of versions 0.0 and 0.1. Raises TarHeaderError."""
    count = _integer(records.get(b"GNU.sparse.numblocks", b""))
    text = records.get(SPARSE_MAP, b"")
    words = text.split(b",") if text else []
    if len(words) != 2 * count:
        raise TarHeaderError("a sparse map has another number of fragments than it says")
    return SparseMap(array("q", map(_integer, words)))


def map_in_data(read_block: Callable[[], bytes]) -> SparseMap:
    """The map of version 1.0, which begins the data: lines of digits, then zeros to the end of a block.

    `read_block` gives the next 512 bytes of the entry's data, fewer at its end. Raises TarHeaderError, or
    TarTruncatedError for a map that passes the entry's end.
    """
    lines = _lines(read_block)
    count = _integer(next(lines))
    if not 0 <= count <= MAX_MAP:
        raise TarHeaderError("a sparse map has an impossible number of fragments")
    return SparseMap(array("q", (_integer(next(lines)) for _ in range(2 * count))))


def _lines(read_block: Callable[[], bytes]) -> Iterator[bytes]:
    """Lines without their newlines; a block is read only when a line needs it."""
    rest = b""
    while True:
        pieces = [rest]
        length = len(rest)
        while True:
            block = read_block()
            if len(block) < BLOCK:
                raise TarTruncatedError("a sparse map passes the end of its file's data")
            pieces.append(block)
            length += len(block)
            if b"\n" in block:
                break
            if length > MAX_MAP:
                raise TarHeaderError("a number in a sparse map is too long")
        *complete, rest = b"".join(pieces).split(b"\n")
        yield from complete


def _integer(text: bytes) -> int:
    value = decimal(text)
    if value is None:
        raise TarHeaderError("a sparse map holds something that is no number")
    return value
