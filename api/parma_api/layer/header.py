"""One 512-byte tar header and the records of an extended one (section 4.2 and 4.4). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from parma_api.layer.errors import LayerError, header

Time = tuple[int, int]
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_DIGITS = re.compile(rb"[0-9]*")
XATTR_PREFIX = b"SCHILY.xattr."


@dataclass(slots=True)
class Entry:
    """One entry; names are bytes, times (seconds, nanoseconds) or None."""

    name: bytes
    link: bytes
    flag: bytes
    size: int
    mode: int
    uid: int
    gid: int
    mtime: Time | None
    atime: Time | None = None
    ctime: Time | None = None
    major: int = 0
    minor: int = 0
    dialect: str = "V7"
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    fragments: list[tuple[int, int]] | None = None
    stored: int = 0
    """Bytes of data in the stream."""


def text(raw: bytes) -> bytes:
    """The bytes before the first NUL."""
    return raw.partition(b"\0")[0]


def octal(raw: bytes) -> int:
    """An octal field. Raises LayerError."""
    digits = raw.strip(b"\0 ").partition(b"\0")[0]
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise header("a number of a header is not octal")
    value = int(digits, 8)
    if value >> 64:
        raise header("a number of a header is too large")
    return value


def number(raw: bytes) -> int:
    """An octal or base-256 field. Raises LayerError."""
    if raw[0] < 0x80:
        return octal(raw)
    inverted = bool(raw[0] & 0x40)
    body = bytes(byte ^ 0xFF for byte in raw) if inverted else raw
    value = int.from_bytes(bytes((body[0] & 0x7F,)) + body[1:], "big")
    if value >> 63:
        raise header("a base-256 number of a header is too large")
    return -1 - value if inverted else value


def signed64(value: int) -> int:
    """A Go uint64 taken as int64, as the reference does with octal fields."""
    return value - (1 << 64) if value >= 1 << 63 else value


def parse_header(block: bytes) -> Entry:
    """The fields of a header. Raises LayerError."""
    blank = block[:148] + b" " * 8 + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in blank)
    if octal(block[148:156]) not in (sum(blank), signed):
        raise header("a header's checksum is wrong")
    entry = Entry(
        name=text(block[:100]),
        link=text(block[157:257]),
        flag=block[156:157],
        size=signed64(number(block[124:136])),
        mode=number(block[100:108]),
        uid=number(block[108:116]),
        gid=number(block[116:124]),
        mtime=(signed64(number(block[136:148])), 0),
        dialect=_dialect(block),
    )
    if entry.dialect != "V7":
        entry.major, entry.minor = number(block[329:337]), number(block[337:345])
    prefix = _dialect_fields(entry, block)
    if prefix:
        entry.name = prefix + b"/" + entry.name
    return entry


def _dialect(block: bytes) -> str:
    magic, version = block[257:263], block[263:265]
    if magic == b"ustar\0":
        return "STAR" if block[508:512] == b"tar\0" else "POSIX"
    return "GNU" if magic == b"ustar " and version == b" \0" else "V7"


def _dialect_fields(entry: Entry, block: bytes) -> bytes:
    """Sets the times that the dialect has; the name's prefix."""
    if entry.dialect == "POSIX":
        return text(block[345:500])
    if entry.dialect == "STAR":
        entry.atime = (signed64(number(block[476:488])), 0)
        entry.ctime = (signed64(number(block[488:500])), 0)
        return text(block[345:476])
    if entry.dialect != "GNU":
        return b""
    try:
        times = [
            (signed64(number(raw)), 0) if raw[0] else None
            for raw in (block[345:357], block[357:369])
        ]
    except LayerError:
        prefix = text(block[345:500])
        return prefix if all(byte < 0x80 for byte in prefix) else b""
    entry.atime, entry.ctime = times
    return b""


def integer(raw: bytes) -> int:
    """A decimal integer of a record, 64 bits. Raises LayerError."""
    if not _INTEGER.fullmatch(raw) or len(raw.lstrip(b"+-0")) > 19:
        raise header("a record's number cannot be read")
    value = int(raw)
    if not -(1 << 63) <= value < 1 << 63:
        raise header("a record's number is too large")
    return value


def time(raw: bytes) -> Time:
    """A time of a record (section 4.4). Raises LayerError."""
    whole, _, fraction = raw.partition(b".")
    seconds = integer(whole)
    if not _DIGITS.fullmatch(fraction):
        raise header("a record's time cannot be read")
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    if whole.startswith(b"-") and nanoseconds:
        return seconds - 1, 1_000_000_000 - nanoseconds
    return seconds, nanoseconds


def records(data: bytes) -> dict[bytes, bytes]:
    """The records of an extended header. Raises LayerError."""
    found: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    while data:
        key, value, data = _record(data)
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            wanted = b"GNU.sparse.numbytes" if len(sparse) % 2 else b"GNU.sparse.offset"
            if key != wanted or b"," in value:
                raise header("sparse records do not alternate")
            sparse.append(value)
        else:
            found[key] = value
    if sparse:
        found[b"GNU.sparse.map"] = b",".join(sparse)
    return found


def _record(data: bytes) -> tuple[bytes, bytes, bytes]:
    token, space, _ = data.partition(b" ")
    if not space:
        raise header("a record has no length")
    size = integer(token)
    if size < 5 or size > len(data) or size <= len(token) + 1 or data[size - 1 : size] != b"\n":
        raise header("a record's length is wrong")
    key, equals, value = data[len(token) + 1 : size - 1].partition(b"=")
    if not equals or not key or b"\0" in key:
        raise header("a record has no key")
    if key in (b"path", b"linkpath", b"uname", b"gname") and b"\0" in value:
        raise header("a record's text holds a NUL")
    return key, value, data[size:]
