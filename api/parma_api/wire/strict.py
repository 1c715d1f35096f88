"""A checker that walks protobuf wire bytes before betterproto decodes them (design.md 2.10).

betterproto takes truncated fields, wrong wire types, unknown fields and repeated single fields without a word. The
walk here refuses each, against a table that is made once for each message class from betterproto's own metadata. It
decodes nothing: what passes is then parsed by betterproto, what does not is an InvalidArgumentError that names the
field.

    record   = tag value                tag = varint(number << 3 | wire type)
    wire type  0 varint    1 eight bytes    2 varint(length) bytes    5 four bytes    3, 4 groups: refused

Encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeVar

import betterproto

from parma_api.status import InvalidArgumentError
from parma_api.wire.table import (
    BOOL,
    BYTES,
    DELIMITED,
    EIGHT,
    ENUM,
    FIXED32,
    FOUR,
    PACKED,
    STRING,
    TIMESTAMP,
    UINT32,
    UINT64,
    VARINT,
    Entry,
    Table,
    table_of,
    timestamp_class,
)

M = TypeVar("M", bound=betterproto.Message)


class Unknown(enum.Enum):
    """What becomes of fields and enum values that the message does not define."""

    REFUSE = "refuse"
    IGNORE = "ignore"
    """For a local peer that may be newer than we (containerd). Everything else stays strict."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one message, nested ones included."""

    size: int = 4 << 20
    """Bytes."""
    items: int = 10_000
    """Elements of one list or map, or unknown fields of one message."""
    elements: int = 100_000
    """Elements of all lists together: what a decoder pays for is their number."""
    depth: int = 16
    """Messages inside messages."""


DEFAULT_LIMITS: Final = Limits()


_EIGHT_OR_FOUR: Final = {EIGHT: 8, FOUR: 4}


class _RefusedError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


class _Walk:
    """One message's bytes, its limits, and the number of list elements still allowed."""

    __slots__ = ("data", "elements_left", "limits", "unknown")

    def __init__(self, data: bytes, unknown: Unknown, limits: Limits) -> None:
        self.data = data
        self.unknown = unknown
        self.limits = limits
        self.elements_left = limits.elements


def decode(
    cls: type[M],
    data: bytes,
    limits: Limits = DEFAULT_LIMITS,
    *,
    unknown: Unknown = Unknown.REFUSE,
) -> M:
    """Check, then decode. Raises InvalidArgumentError that names the field."""
    check(cls, data, limits, unknown=unknown)
    return cls().parse(data)


def check(
    cls: type[betterproto.Message],
    data: bytes,
    limits: Limits = DEFAULT_LIMITS,
    *,
    unknown: Unknown = Unknown.REFUSE,
) -> None:
    """Walk the bytes. Raises InvalidArgumentError that names the field."""
    size = len(data)
    if size > limits.size:
        raise InvalidArgumentError(f"{cls.__name__}: {size} bytes, the limit is {limits.size}")
    try:
        _message(_Walk(data, unknown, limits), 0, size, table_of(cls), limits.depth)
    except _RefusedError as refused:
        path = ".".join([cls.__name__, *reversed(refused.path)])
        raise InvalidArgumentError(f"{path}: {refused.reason}") from None


def _message(walk: _Walk, position: int, end: int, table: Table, depth: int) -> None:
    """The records between position and end. Raises _RefusedError, its path from the inside out."""
    data = walk.data
    seen: set[int | str] = set()
    counts: dict[int, int] = {}
    name = ""
    try:
        while position < end:
            name = ""
            tag = data[position]
            if tag < 0x80:
                position += 1
            else:
                tag, position = _varint(data, position, end)
            entry = table.by_tag.get(tag)
            if entry is None:
                position = _foreign(walk, position, end, table, tag, counts)
                continue
            kind, name, once, number = entry[:4]
            if once and once not in seen:
                seen.add(once)
            else:
                _count(walk, counts, number, once)
            if kind <= BOOL:
                position = _checked_varint(walk, position, end, kind, entry)
            elif kind >= BYTES:
                position = _delimited(walk, position, end, entry, depth)
            else:
                position = _skip(position, end, 4 if kind == FIXED32 else 8)
    except _RefusedError as refused:
        if name:
            refused.path.append(name)
        raise


def _count(walk: _Walk, counts: dict[int, int], number: int, once: int | str) -> None:
    """One more element of a list. What may come once is here only when it comes twice."""
    if once:
        raise _RefusedError("comes twice" if once == number else f"a second field of oneof {once}")
    counts[number] = count = counts.get(number, 0) + 1
    if count > walk.limits.items:
        raise _RefusedError(f"more than {walk.limits.items} elements")
    walk.elements_left -= 1
    if walk.elements_left < 0:
        raise _RefusedError(f"more than {walk.limits.elements} elements in all lists")


def _delimited(walk: _Walk, position: int, end: int, entry: Entry, depth: int) -> int:
    data = walk.data
    if position < end and data[position] < 0x80:
        length = data[position]
        start = position + 1
    else:
        length, start = _varint(data, position, end)
    stop = start + length
    if stop > end:
        raise _RefusedError(f"truncated: {length} bytes announced, {end - start} there")
    kind = entry.kind
    if kind == STRING:
        try:
            str(data[start:stop], "utf-8")
        except UnicodeDecodeError:
            raise _RefusedError("not UTF-8") from None
    elif kind == PACKED:
        _packed(walk, start, stop, entry)
    elif kind != BYTES:
        if depth == 0:
            raise _RefusedError(f"messages nested deeper than {walk.limits.depth}")
        assert entry.child is not None
        _message(walk, start, stop, entry.child, depth - 1)
        if kind == TIMESTAMP:
            _timestamp(data[start:stop])
    return stop


def _packed(walk: _Walk, position: int, end: int, entry: Entry) -> None:
    count = 0
    while position < end:
        count += 1
        if count > walk.limits.items:
            raise _RefusedError(f"more than {walk.limits.items} elements")
        if entry.packed <= BOOL:
            position = _checked_varint(walk, position, end, entry.packed, entry)
        else:
            position = _skip(position, end, 4 if entry.packed == FIXED32 else 8)
    walk.elements_left -= count


def _checked_varint(walk: _Walk, position: int, end: int, kind: int, entry: Entry) -> int:
    """A varint of the kind's range; returns where it ends."""
    data = walk.data
    if position < end and data[position] < 0x80:
        value = data[position]
        position += 1
    else:
        value, position = _varint(data, position, end)
    if kind == UINT64:
        return position
    if kind == BOOL:
        legal = value <= 1
    elif kind == UINT32:
        legal = value < 1 << 32
    else:
        legal = value < 1 << 31 or value >= (1 << 64) - (1 << 31)
        if kind == ENUM and walk.unknown is Unknown.REFUSE:
            legal = legal and (value if value < 1 << 31 else value - (1 << 64)) in entry.values
    if not legal:
        raise _RefusedError(f"value {value} is out of range")
    return position


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Value and where it ends: at most 64 bits, in the shortest form."""
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value >= 1 << 64:
                raise _RefusedError("over-long varint")
            return value, position
        shift += 7
        if shift == 70:
            raise _RefusedError("over-long varint")
    raise _RefusedError("truncated varint")


def _skip(position: int, end: int, length: int) -> int:
    if position + length > end:
        raise _RefusedError(f"truncated: {length} bytes expected, {end - position} there")
    return position + length


def _foreign(
    walk: _Walk, position: int, end: int, table: Table, tag: int, counts: dict[int, int]
) -> int:
    """A tag that the message does not define: refused, or skipped where unknown fields are ignored."""
    number, wire_type = tag >> 3, tag & 7
    if number in table.by_number:
        raise _RefusedError(f"{table.by_number[number]} has wrong wire type {wire_type}")
    if not 0 < number < 1 << 29:
        raise _RefusedError(f"field number {number} does not exist")
    if wire_type in (3, 4, 6, 7):
        raise _RefusedError(f"field {number} has wire type {wire_type}, which is not in use")
    if walk.unknown is Unknown.REFUSE:
        raise _RefusedError(f"unknown field {number}")
    _count(walk, counts, 0, 0)
    if wire_type == VARINT:
        return _varint(walk.data, position, end)[1]
    if wire_type == DELIMITED:
        length, position = _varint(walk.data, position, end)
        return _skip(position, end, length)
    return _skip(position, end, _EIGHT_OR_FOUR[wire_type])


def _timestamp(data: bytes) -> None:
    """Years 1 to 9999, nanoseconds positive: google/protobuf/timestamp.proto."""
    value = timestamp_class()().parse(data)
    seconds, nanos = int(getattr(value, "seconds", 0)), int(getattr(value, "nanos", 0))
    if not (-62_135_596_800 <= seconds <= 253_402_300_799 and 0 <= nanos < 1_000_000_000):
        raise _RefusedError("not a time between the years 1 and 9999")
