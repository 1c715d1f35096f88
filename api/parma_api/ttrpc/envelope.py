"""What Request and Response frames carry (ttrpc.proto), written out by hand.

betterproto needs about 0.1 ms for each of the four envelopes of a call, twelve times that in an emulated guest; this
needs a tenth. Reading still begins with the strict checker, by the generated classes; a test holds both against them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from betterproto import encode_varint

from parma_api.gen import ttrpc
from parma_api.ttrpc.frame import MAX_DATA
from parma_api.wire.strict import Limits, Unknown, check

_LIMITS: Final = Limits(size=MAX_DATA, items=1000)
_VARINT, _EIGHT, _DELIMITED = 0, 1, 2
_SIGN: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Request:
    """A call: `payload` is the encoded request message."""

    service: str
    method: str
    payload: bytes = b""
    timeout_nano: int = 0
    metadata: tuple[tuple[str, str], ...] = ()

    def metadata_lists(self) -> Mapping[str, tuple[str, ...]]:
        """Values by lower-case key, in order."""
        collected: dict[str, tuple[str, ...]] = {}
        for key, value in self.metadata:
            key = key.lower()
            collected[key] = (*collected.get(key, ()), value)
        return collected


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: `code` 0 with a payload, or another with a text."""

    payload: bytes = b""
    code: int = 0
    message: str = ""


def encode_request(request: Request) -> bytes:
    """Wire bytes of ttrpc.Request."""
    parts = [
        _delimited(1, request.service.encode()),
        _delimited(2, request.method.encode()),
        _delimited(3, request.payload),
    ]
    if request.timeout_nano:
        parts.append(b"\x20" + encode_varint(request.timeout_nano))
    for key, value in request.metadata:
        pair = _delimited(1, key.encode()) + _delimited(2, value.encode())
        parts.append(b"\x2a" + encode_varint(len(pair)) + pair)
    return b"".join(parts)


def decode_request(data: bytes, unknown: Unknown) -> Request:
    """Raises InvalidArgumentError."""
    check(ttrpc.Request, data, _LIMITS, unknown=unknown)
    texts = {1: b"", 2: b"", 3: b""}
    timeout = 0
    metadata: list[tuple[str, str]] = []
    for number, value, text in _fields(data):
        if number == 4:
            timeout = value - ((value & _SIGN) << 1)
        elif number == 5:
            pair = {field: part.decode() for field, _, part in _fields(text)}
            metadata.append((pair.get(1, ""), pair.get(2, "")))
        elif number in texts:
            texts[number] = text
    return Request(texts[1].decode(), texts[2].decode(), texts[3], timeout, tuple(metadata))


def encode_response(response: Response) -> bytes:
    """Wire bytes of ttrpc.Response; a good one has no status."""
    if not response.code:
        return _delimited(2, response.payload)
    status = b"\x08" + encode_varint(response.code) + _delimited(2, response.message.encode())
    return b"\x0a" + encode_varint(len(status)) + status


def decode_response(data: bytes, unknown: Unknown) -> Response:
    """Raises InvalidArgumentError."""
    check(ttrpc.Response, data, _LIMITS, unknown=unknown)
    payload, code, message = b"", 0, b""
    for number, _, part in _fields(data):
        if number == 1:
            for field, value, text in _fields(part):
                code = value if field == 1 else code
                message = text if field == 2 else message
        elif number == 2:
            payload = part
    return Response(payload, code, message.decode())


def _delimited(number: int, value: bytes) -> bytes:
    """A field of bytes; nothing when empty (proto3)."""
    if not value:
        return b""
    return b"%c%b%b" % (number << 3 | _DELIMITED, encode_varint(len(value)), value)


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, value of a varint, content of a delimited field. Only for bytes that passed the checker."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == _DELIMITED:
            length, position = _varint(data, position)
            yield tag >> 3, 0, data[position : position + length]
            position += length
        elif wire_type == _VARINT:
            value, position = _varint(data, position)
            yield tag >> 3, value, b""
        else:
            position += 8 if wire_type == _EIGHT else 4


def _varint(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    value, shift = byte & 0x7F, 7
    while byte >= 0x80:
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        shift += 7
    return value, position + 1
