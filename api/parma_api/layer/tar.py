"""The strict tar reader: bytes in, entries and pieces of their data out. Nothing is extracted.

Python's `tarfile` cannot stand in: it applies global headers to later entries, loses nanoseconds, decodes names, lets
the order of headers decide between PAX and GNU names, and treats broken and short archives differently. Each of these
shapes the image, hence the root hash. Rules: layer format, section 4.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from parma_api.layer import pax, sparse
from parma_api.layer.errors import TarHeaderError, TarTruncatedError
from parma_api.layer.header import BLOCK, Dialect, Header, parse_header
from parma_api.layer.scalar import Time
from parma_api.layer.source import ChunkSource

MAX_SPECIAL = 1 << 20
"""Bytes of PAX records, or of a long name."""
_ZERO_BLOCK = bytes(BLOCK)


class Kind(enum.Enum):
    """What an entry makes. The values are tar's type flags; what has none of these is a regular file."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


_KINDS = {kind.value: kind for kind in Kind}


class Entry(NamedTuple):
    """One entry with all headers applied. `size` is that of the file, holes included; numbers are not yet cut."""

    name: bytes
    kind: Kind
    link: bytes = b""
    size: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    major: int = 0
    minor: int = 0
    mtime: Time | None = None
    atime: Time | None = None
    ctime: Time | None = None
    xattrs: dict[bytes, bytes] | None = None


class _Pending:
    """What extension headers say about the next entry."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.name = b""
        self.link = b""


class TarReader:
    """Iterates over entries; between two, `data` gives the pieces of the one just read."""

    def __init__(self, source: ChunkSource) -> None:
        self._source = source
        self._left = 0
        self._padding = 0
        self._map: sparse.SparseMap | None = None
        self._size = 0

    def __iter__(self) -> Iterator[Entry]:
        """Entries in stream order, to the end mark. Raises TarHeaderError, TarTruncatedError."""
        pending = _Pending()
        while block := self._next_header():
            header = parse_header(block)
            if header.size < 0 and header.flag not in _NO_DATA:
                raise TarHeaderError("a header's size is negative")
            match header.flag:
                case b"x":
                    pending.records = pax.parse_records(self._special(header))
                case b"L":
                    pending.name = self._special(header).partition(b"\0")[0]
                case b"K":
                    pending.link = self._special(header).partition(b"\0")[0]
                case b"g":
                    pending = _Pending()
                    yield _global_entry(header, pax.parse_records(self._special(header)))
                case _:
                    yield self._entry(header, pending, block)
                    pending = _Pending()

    def data(self) -> Iterator[memoryview | int]:
        """The current entry's data: pieces of bytes, and numbers that stand for so many zero bytes.

        Raises TarTruncatedError, and TarHeaderError if a sparse map does not fit the data.
        """
        if self._map is None:
            return self._take(self._left)
        return self._spread(self._map)

    def _spread(self, fragments: sparse.SparseMap) -> Iterator[memoryview | int]:
        if fragments.data_size != self._left:
            raise TarHeaderError("a sparse map describes more or less data than there is")
        at = 0
        for offset, length in fragments:
            if offset > at:
                yield offset - at
            yield from self._take(length)
            at = offset + length
        if self._size > at:
            yield self._size - at

    def _take(self, size: int) -> Iterator[memoryview]:
        while size:
            piece = self._source.some(size)
            if not piece:
                raise TarTruncatedError("the stream ends inside a file's data")
            self._left -= len(piece)
            size -= len(piece)
            yield piece

    def _next_header(self) -> bytes:
        """The next block that is a header; nothing at the end of the archive."""
        if self._source.skip(self._left):
            raise TarTruncatedError("the stream ends inside an entry's data")
        # A stream that ends inside the padding ends cleanly: the next read finds nothing.
        self._source.skip(self._padding)
        self._left = self._padding = 0
        block = self._block()
        if block != _ZERO_BLOCK:
            return block
        if (second := self._block()) and second != _ZERO_BLOCK:
            raise TarHeaderError("a zero block is followed by something else than a second one")
        return b""

    def _block(self) -> bytes:
        block = self._source.exactly(BLOCK)
        if 0 < len(block) < BLOCK:
            raise TarTruncatedError("the stream ends inside a header")
        return block

    def _begin(self, size: int) -> None:
        """What follows in the stream is `size` bytes of data, and padding."""
        self._left, self._padding = size, -size % BLOCK
        self._map = None

    def _special(self, header: Header) -> bytes:
        """The data of an extension header."""
        self._begin(header.size)
        wanted = min(header.size, MAX_SPECIAL + 1)
        data = self._source.exactly(wanted)
        self._left -= len(data)
        if len(data) < wanted:
            raise TarTruncatedError("the stream ends inside an extension header")
        if wanted > MAX_SPECIAL:
            raise TarHeaderError("an extension header has more than 1 MiB")
        return data

    def _entry(self, header: Header, pending: _Pending, block: bytes) -> Entry:
        """An ordinary entry: the header, then PAX records, then GNU long names, then what a sparse map says."""
        records = pending.records
        name = pending.name or records.get(b"path") or header.name
        size = pax.integer(records, b"size", header.size)
        kind = _kind(header.flag, name)
        entry = Entry(
            name=name,
            kind=kind,
            link=pending.link or records.get(b"linkpath") or header.link,
            size=size,
            mode=header.mode,
            uid=pax.integer(records, b"uid", header.uid),
            gid=pax.integer(records, b"gid", header.gid),
            major=header.major,
            minor=header.minor,
            mtime=pax.moment(records, b"mtime", header.mtime),
            atime=pax.moment(records, b"atime", header.atime),
            ctime=pax.moment(records, b"ctime", header.ctime),
            xattrs=pax.attributes(records) if records else None,
        )
        if kind is not Kind.FILE:
            size = 0
        if size < 0:
            raise TarHeaderError("an entry's size is negative")
        self._begin(size)
        return self._with_holes(entry, header, records, block)

    def _with_holes(
        self, entry: Entry, header: Header, records: pax.Records, block: bytes
    ) -> Entry:
        """The entry with name and size as its sparse map says, if it has one."""
        real_size = entry.size
        if header.flag == b"S":
            if header.dialect is not Dialect.GNU:
                raise TarHeaderError("a GNU sparse file under a header that is not GNU's")
            real_size, self._map = sparse.old_gnu_map(block, lambda: self._source.exactly(BLOCK))
        elif records and (version := sparse.pax_version(records)):
            real_size = sparse.pax_real_size(records, entry.size)
            entry = entry._replace(name=records.get(b"GNU.sparse.name") or entry.name)
            self._map = (
                sparse.map_in_data(self._map_block)
                if version == (1, 0)
                else sparse.map_of_records(records)
            )
        self._size = real_size
        if self._map is None:
            return entry
        if entry.kind is not Kind.FILE:
            raise TarHeaderError("a sparse map for something that is no regular file")
        self._map.check(real_size)
        return entry._replace(size=real_size)

    def _map_block(self) -> bytes:
        block = self._source.exactly(min(BLOCK, self._left))
        self._left -= len(block)
        return block


_NO_DATA = frozenset(kind.value for kind in Kind if kind is not Kind.FILE)


def _kind(flag: bytes, name: bytes) -> Kind:
    if flag == b"\0" and name.endswith(b"/"):
        return Kind.DIRECTORY
    return _KINDS.get(flag, Kind.FILE)


def _global_entry(header: Header, records: pax.Records) -> Entry:
    """A global header is an empty file of its own; its records say nothing about later entries.

    With a number in them that cannot be read the reference drops the attributes, and may or may not take the name:
    what is unpredictable is refused.
    """
    try:
        for key in (b"uid", b"gid", b"size"):
            pax.integer(records, key, 0)
        for key in (b"mtime", b"atime", b"ctime"):
            pax.moment(records, key, None)
    except TarHeaderError:
        if records.get(b"path"):
            raise
        return Entry(header.name, Kind.FILE)
    return Entry(
        records.get(b"path") or header.name, Kind.FILE, xattrs=pax.attributes(records) or None
    )
