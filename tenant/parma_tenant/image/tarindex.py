"""Where the files of an archive lie in it: headers only, nothing is unpacked, sizes of headers are capped.

An image archive is hostile until digests have been checked, and Python's own reader takes extension headers of any
size into memory. Sources: POSIX.1-2017 pax and ustar interchange formats; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Final

from parma_tenant.image.errors import ImageError, shown

BLOCK: Final = 512
MAX_EXTENSION: Final = 1 << 20
MAX_MEMBERS: Final = 200_000
_ZERO: Final = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Header:
    """One header block."""

    name: str
    kind: bytes
    """The type flag; NUL is read as b"0"."""
    size: int
    """Bytes that follow; links and folders have none, whatever they say."""
    link: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0

    @property
    def is_file(self) -> bool:
        return self.kind in (b"0", b"7")

    @property
    def padded(self) -> int:
        """Bytes up to the next header."""
        return -(-self.size // BLOCK) * BLOCK


_NO_DATA: Final = (b"1", b"2", b"3", b"4", b"5", b"6")


def parse_header(block: bytes) -> Header | None:
    """The header; None for the end mark. Raises ImageError."""
    if block == _ZERO:
        return None
    stored = _number(block[148:156])
    if len(block) != BLOCK or stored != sum(block[:148]) + 8 * 32 + sum(block[156:]):
        raise ImageError("the archive is no tar file, or is damaged: a header's checksum is wrong")
    kind = block[156:157]
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    kind = b"0" if kind == b"\0" else kind
    size = 0 if kind in _NO_DATA else _number(block[124:136])
    mode, uid, gid = (_number(block[start : start + 8]) for start in (100, 108, 116))
    return Header(name, kind, size, _text(block[157:257]), mode, uid, gid)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    if field and field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise ImageError("the archive is no tar file, or is damaged: a header holds no number")
    return int(digits or b"0", 8)


class Extensions:
    """Names and sizes that extension headers give to the member behind them."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._link: str | None = None
        self._size: int | None = None
        self.sparse = False

    @staticmethod
    def has(header: Header) -> bool:
        """Whether the header's data is an extension. Raises ImageError for one that is too large."""
        known = header.kind in (b"x", b"g", b"L", b"K")
        if known and header.size > MAX_EXTENSION:
            raise ImageError("the archive has an extension header of more than 1 MiB")
        return known

    def add(self, header: Header, data: bytes) -> None:
        """Raises ImageError."""
        if header.kind == b"L":
            self._name = _text(data)
        elif header.kind == b"K":
            self._link = _text(data)
        elif header.kind == b"x":
            self._pax(data)

    def _pax(self, data: bytes) -> None:
        while data:
            length, blank, _ = data.partition(b" ")
            if not blank or not length.isdigit() or len(length) > 7 or int(length) > len(data):
                raise ImageError("the archive has a malformed extended header")
            record, data = data[len(length) + 1 : int(length)], data[int(length) :]
            key, equals, value = record.removesuffix(b"\n").partition(b"=")
            if not equals:
                raise ImageError("the archive has a malformed extended header")
            self._set(key, value)

    def _set(self, key: bytes, value: bytes) -> None:
        if key == b"path":
            self._name = value.decode("utf-8", "surrogateescape")
        elif key == b"linkpath":
            self._link = value.decode("utf-8", "surrogateescape")
        elif key == b"size":
            if not value.isdigit() or len(value) > 19:
                raise ImageError("the archive has a malformed extended header")
            self._size = int(value)
        elif key.startswith(b"GNU.sparse."):
            self.sparse = True

    def apply(self, header: Header) -> Header:
        """The member's header with what came before it, which counts once."""
        size = header.size if self._size is None or header.kind in _NO_DATA else self._size
        link = header.link if self._link is None else self._link
        name = header.name if self._name is None else self._name
        done = replace(header, name=name, size=size, link=link)
        self._name, self._link, self._size = None, None, None
        return done


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive, or a link to another member (docker save writes those)."""

    offset: int
    size: int
    link: str | None = None


def index(fd: int) -> dict[str, Member]:
    """Regular files and links by plain name; of several with one name the last counts. Raises ImageError."""
    end = os.fstat(fd).st_size
    members: dict[str, Member] = {}
    extensions, at = Extensions(), 0
    while at + BLOCK <= end:
        header = parse_header(os.pread(fd, BLOCK, at))
        if header is None:
            break
        at += BLOCK
        if Extensions.has(header):
            extensions.add(header, os.pread(fd, header.size, at))
        else:
            header = extensions.apply(header)
            _add(members, header, at)
        at += header.padded
        if at > end + BLOCK:
            raise ImageError("the archive is cut off")
    if not members:
        raise ImageError("the archive is empty, or no tar file")
    return members


def _add(members: dict[str, Member], header: Header, at: int) -> None:
    if len(members) >= MAX_MEMBERS:
        raise ImageError(f"the archive has more than {MAX_MEMBERS} members")
    name = plain(header.name)
    if header.is_file:
        members[name] = Member(at, header.size)
    elif header.kind == b"2":
        folder = name.rpartition("/")[0]
        members[name] = Member(at, 0, _joined(folder, header.link))
    elif header.kind == b"1":
        members[name] = Member(at, 0, plain(header.link))
    elif header.kind not in (b"5", b"g"):
        raise ImageError(f"the archive holds {shown(name)}, which is neither file, link nor folder")


def plain(name: str) -> str:
    """A member's name without `./` and slashes at its ends. Raises ImageError for one out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or name.startswith("/"):
        raise ImageError(f"the archive holds {shown(name)}, a path out of it")
    return "/".join(parts)


def _joined(folder: str, link: str) -> str:
    """Where a symbolic link leads, as a member's name."""
    parts = folder.split("/") if folder else []
    for part in link.split("/"):
        if part == "..":
            if not parts:
                raise ImageError(f"the archive holds a link to {shown(link)}, a path out of it")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if link.startswith("/"):
        raise ImageError(f"the archive holds a link to {shown(link)}, a path out of it")
    return "/".join(parts)
