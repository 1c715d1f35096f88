"""One tar header of 512 bytes, in the four dialects: V7, POSIX ustar, STAR and GNU. Pure.

The rules are those of the layer format, section 4.2: what is tolerated and what is an error shapes the root hash.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from parma_api.layer.errors import TarHeaderError
from parma_api.layer.scalar import Time, number, octal

BLOCK = 512
_CHECKSUM = slice(148, 156)
_CHECKSUM_AS_SPACES = 8 * 0x20
_SMALL = bytes(range(0x80))


class Dialect(enum.Enum):
    """Told by magic, version and STAR's trailer."""

    V7 = "v7"
    POSIX = "posix"
    STAR = "star"
    GNU = "gnu"


class Header(NamedTuple):
    """The fields as they stand in the block, before PAX records and long names."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: Time
    flag: bytes
    link: bytes
    major: int
    minor: int
    atime: Time | None
    ctime: Time | None
    dialect: Dialect


def parse_header(block: bytes) -> Header:
    """The header in `block` (512 bytes). Raises TarHeaderError."""
    _check_sum(block)
    dialect = _dialect(block)
    name = _string(block[0:100])
    major = minor = 0
    atime = ctime = None
    prefix = b""
    if dialect is not Dialect.V7:
        major, minor = number(block[329:337]), number(block[337:345])
        prefix, atime, ctime = _tail(block, dialect)
    return Header(
        name=prefix + b"/" + name if prefix else name,
        mode=number(block[100:108]),
        uid=number(block[108:116]),
        gid=number(block[116:124]),
        size=number(block[124:136]),
        mtime=Time(number(block[136:148])),
        flag=block[156:157],
        link=_string(block[157:257]),
        major=major,
        minor=minor,
        atime=atime,
        ctime=ctime,
        dialect=dialect,
    )


def _check_sum(block: bytes) -> None:
    """Old tars summed signed bytes, so either sum will do."""
    stored = octal(block[_CHECKSUM])
    unsigned = sum(block) - sum(block[_CHECKSUM]) + _CHECKSUM_AS_SPACES
    if stored == unsigned:
        return
    rest = block[:148] + block[156:]
    if stored != unsigned - 256 * len(rest.translate(None, _SMALL)):
        raise TarHeaderError("a header's checksum is wrong")


def _dialect(block: bytes) -> Dialect:
    magic = block[257:263]
    if magic == b"ustar\0":
        return Dialect.STAR if block[508:512] == b"tar\0" else Dialect.POSIX
    return Dialect.GNU if block[257:265] == b"ustar  \0" else Dialect.V7


def _tail(block: bytes, dialect: Dialect) -> tuple[bytes, Time | None, Time | None]:
    """Prefix, atime and ctime: what the bytes from 345 on mean differs."""
    if dialect is Dialect.POSIX:
        return _string(block[345:500]), None, None
    if dialect is Dialect.STAR:
        atime, ctime = Time(number(block[476:488])), Time(number(block[488:500]))
        return _string(block[345:476]), atime, ctime
    try:
        return b"", _optional_time(block[345:357]), _optional_time(block[357:369])
    except TarHeaderError:
        # Writers exist that call themselves GNU and put a POSIX prefix here.
        prefix = _string(block[345:500])
        return (prefix if prefix.isascii() else b""), None, None


def _optional_time(field: bytes) -> Time | None:
    return Time(number(field)) if field[0] else None


def _string(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
