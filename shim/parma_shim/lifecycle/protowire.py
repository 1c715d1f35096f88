"""The few protobuf messages on the paths of `start`, `delete` and `-info`, by hand: betterproto costs 100 ms.

    record = varint(number << 3 | wire type) and, for type 0, a varint; for type 2, varint(length) and bytes

Types 1 and 5 (eight and four bytes) are stepped over.
"""

from __future__ import annotations

from parma_shim.errors import UsageError

MAX_MESSAGE = 1 << 22
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def read_fields(data: bytes) -> dict[int, list[int | bytes]]:
    """Field number -> values in order. Raises UsageError for bytes that are no message."""
    if len(data) > MAX_MESSAGE:
        raise UsageError(f"message on standard input: more than {MAX_MESSAGE} bytes")
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind in (_BYTES, _EIGHT, _FOUR):
            size = {_EIGHT: 8, _FOUR: 4}.get(kind, 0)
            if kind == _BYTES:
                size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
            if at > len(data):
                raise UsageError("message on standard input: cut short")
        else:
            raise UsageError(f"message on standard input: wire type {kind}")
        if not number:
            raise UsageError("message on standard input: field number 0")
        fields.setdefault(number, []).append(value)
    return fields


def last_text(fields: dict[int, list[int | bytes]], number: int) -> str:
    """A string field; empty when absent. Raises UsageError for another type."""
    value = last_bytes(fields, number)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"message on standard input: field {number} is not UTF-8") from error


def last_bytes(fields: dict[int, list[int | bytes]], number: int) -> bytes:
    """A bytes field; empty when absent. Raises UsageError for another type."""
    values = fields.get(number)
    if not values:
        return b""
    if not isinstance(values[-1], bytes):
        raise UsageError(f"message on standard input: field {number} has another type")
    return values[-1]


def number_field(number: int, value: int) -> bytes:
    """A varint field; nothing for 0, as proto3 has it."""
    return _encode_varint(number << 3) + _encode_varint(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """A length-delimited field; nothing when empty."""
    return (
        _encode_varint(number << 3 | _BYTES) + _encode_varint(len(value)) + value if value else b""
    )


def timestamp(nanoseconds: int) -> bytes:
    """google.protobuf.Timestamp{seconds=1, nanos=2}."""
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return number_field(1, seconds) + number_field(2, nanos)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise UsageError("message on standard input: cut short, or a number too long")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
