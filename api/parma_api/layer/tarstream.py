"""The strict, streaming tar reader (section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from parma_api.layer.errors import header, truncated
from parma_api.layer.header import (
    XATTR_PREFIX,
    Entry,
    integer,
    number,
    parse_header,
    records,
    text,
    time,
)

_BLOCK = 512
_SPECIAL_LIMIT = 1 << 20
_CHUNK = 1 << 20
_NO_DATA = b"1", b"2", b"3", b"4", b"5", b"6"


class TarStream:
    """Entries of a tar in order; `data()` gives the current entry's bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0

    def _read(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            part = self._stream.read(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _block(self) -> bytes | None:
        """The next header, or None at the end of the archive."""
        block = self._read(_BLOCK)
        if block and len(block) < _BLOCK:
            raise truncated()
        if not block or any(block):
            return block or None
        second = self._read(_BLOCK)
        if second and len(second) < _BLOCK:
            raise truncated()
        if any(second):
            raise header("a zero block is followed by data")
        return None

    def entries(self) -> Iterator[Entry]:
        """Ordinary entries, global headers among them as the reference makes them."""
        pax: dict[bytes, bytes] = {}
        name = link = b""
        while True:
            self._skip_rest()
            block = self._block()
            if block is None:
                return
            entry = parse_header(block)
            if entry.flag not in _NO_DATA and entry.size < 0:
                raise header("a size is negative")
            if entry.flag in (b"x", b"g", b"L", b"K"):
                data = self._special(entry.size)
                if entry.flag == b"x":
                    pax = records(data)
                elif entry.flag == b"L":
                    name = text(data)
                elif entry.flag == b"K":
                    link = text(data)
                else:
                    pax, name, link = {}, b"", b""
                    yield _global(entry, records(data))
                continue
            _apply(entry, pax)
            entry.name, entry.link = name or entry.name, link or entry.link
            self._open(entry, pax, block)
            pax, name, link = {}, b"", b""
            yield entry

    def _special(self, size: int) -> bytes:
        data = self._read(min(size, _SPECIAL_LIMIT + 1))
        if len(data) < min(size, _SPECIAL_LIMIT + 1):
            raise truncated()
        if size > _SPECIAL_LIMIT:
            raise header("an extension header is too large")
        self._read(-size % _BLOCK)
        return data

    def _open(self, entry: Entry, pax: dict[bytes, bytes], block: bytes) -> None:
        """Decides type and size, reads a sparse map, and makes the data readable."""
        if entry.flag == b"\0":
            entry.flag = b"5" if entry.name.endswith(b"/") else b"0"
        if entry.flag in _NO_DATA:
            self._left = self._padding = 0
            if _sparse_kind(pax) is not None:
                raise header("a sparse map on what is no file")
            entry.size = 0
            return
        if entry.size < 0:
            raise header("a size is negative")
        self._left, self._padding = entry.size, -entry.size % _BLOCK
        if entry.flag == b"S":
            self._old_sparse(entry, block)
        else:
            self._pax_sparse(entry, pax)
        entry.stored = self._left
        _check_fragments(entry)

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        if entry.dialect != "GNU":
            raise header("an old sparse file in another dialect than GNU's")
        entry.size = number(block[483:495])
        area, slots, total = block[386:], 4, 0
        entry.fragments = []
        while True:
            for slot in range(slots):
                at = slot * 24
                if area[at] == 0:
                    break
                entry.fragments.append(
                    (number(area[at : at + 12]), number(area[at + 12 : at + 24]))
                )
            if area[slots * 24] == 0:
                return
            area, slots, total = self._read(_BLOCK), 21, total + _BLOCK
            if len(area) < _BLOCK:
                raise truncated()
            if total > _SPECIAL_LIMIT:
                raise header("a sparse map is too large")

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> None:
        kind = _sparse_kind(pax)
        if kind is None:
            return
        entry.name = pax.get(b"GNU.sparse.name") or entry.name
        real = pax.get(b"GNU.sparse.size") or pax.get(b"GNU.sparse.realsize")
        if real:
            entry.size = integer(real)
        if kind == "data":
            numbers = self._map_in_data()
        else:
            count = integer(pax.get(b"GNU.sparse.numblocks", b""))
            words = pax.get(b"GNU.sparse.map", b"").split(b",")
            words = [] if words == [b""] else words
            if count < 0 or len(words) != 2 * count:
                raise header("a sparse map has another length than it says")
            numbers = [integer(word) for word in words]
        entry.fragments = list(zip(numbers[::2], numbers[1::2], strict=True))

    def _map_in_data(self) -> list[int]:
        pending = b""
        tokens: list[int] = []
        wanted, consumed = 1, 0
        while len(tokens) < wanted:
            line, newline, rest = pending.partition(b"\n")
            if newline:
                tokens.append(integer(line))
                pending = rest
                if len(tokens) == 1:
                    if not 0 <= tokens[0] <= _SPECIAL_LIMIT:
                        raise header("a sparse map is too large")
                    wanted = 1 + 2 * tokens[0]
                continue
            if self._left < _BLOCK:
                raise truncated()
            block = self._read(_BLOCK)
            if len(block) < _BLOCK:
                raise truncated()
            self._left -= _BLOCK
            consumed += _BLOCK
            if consumed > _SPECIAL_LIMIT:
                raise header("a sparse map is too large")
            pending += block
        return tokens[1:]

    def _skip_rest(self) -> None:
        while self._left:
            part = self._read(min(self._left, _CHUNK))
            if not part:
                raise truncated()
            self._left -= len(part)
        self._read(self._padding)
        self._padding = 0

    def data(self, entry: Entry) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of the entry's data, holes left out. Raises LayerError."""
        fragments = [(0, entry.size)] if entry.fragments is None else entry.fragments
        if sum(length for _, length in fragments) != self._left:
            raise header("a sparse map and the data have different lengths")
        for start, length in fragments:
            offset, left = start, length
            while left:
                part = self._read(min(left, _CHUNK))
                if not part:
                    raise truncated()
                self._left -= len(part)
                yield offset, part
                offset, left = offset + len(part), left - len(part)


def _sparse_kind(pax: dict[bytes, bytes]) -> str | None:
    version = pax.get(b"GNU.sparse.major", b""), pax.get(b"GNU.sparse.minor", b"")
    if version in ((b"0", b"0"), (b"0", b"1")):
        return "record"
    if version == (b"1", b"0"):
        return "data"
    if version != (b"", b""):
        return None
    return "record" if pax.get(b"GNU.sparse.map") else None


def _check_fragments(entry: Entry) -> None:
    if entry.fragments is None:
        return
    end = 0
    for offset, length in entry.fragments:
        if offset < end or length < 0 or offset + length > entry.size:
            raise header("a sparse map is out of order")
        end = offset + length
    if entry.size < 0:
        raise header("a sparse file's size is negative")


def _apply(entry: Entry, pax: dict[bytes, bytes]) -> None:
    for key, value in pax.items():
        if key.startswith(XATTR_PREFIX):
            entry.xattrs[key[len(XATTR_PREFIX) :]] = value
        if not value:
            continue
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key in (b"uid", b"gid", b"size"):
            setattr(entry, key.decode(), integer(value))
        elif key in (b"mtime", b"atime", b"ctime"):
            setattr(entry, key.decode(), time(value))


def _global(entry: Entry, pax: dict[bytes, bytes]) -> Entry:
    xattrs = {k[len(XATTR_PREFIX) :]: v for k, v in pax.items() if k.startswith(XATTR_PREFIX)}
    name = pax.get(b"path") or entry.name
    return Entry(name, b"", b"0", 0, 0, 0, 0, None, xattrs=xattrs)
