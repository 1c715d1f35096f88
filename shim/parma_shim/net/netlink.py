"""Netlink messages: bytes in, attributes out. Pure.

Layout: include/uapi/linux/netlink.h. A message is a 16-byte header {u32 length, u16 type, u16 flags, u32 sequence,
u32 port} and a body; an attribute is {u16 length, u16 type} and its value, both padded to 4 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from parma_shim.net.errors import NetworkError

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Message:
    """One message without its header's bookkeeping."""

    type: int
    body: bytes


def pack(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole message."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """A string attribute with its final NUL."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A number."""
    return attribute(kind, struct.pack("=I", value))


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram. Raises NetworkError on a length that does not fit."""
    while data:
        if len(data) < _HEADER.size:
            raise NetworkError("netlink: a message without its header")
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            raise NetworkError("netlink: a message longer than its datagram")
        yield Message(kind, data[_HEADER.size : length])
        data = data[(length + 3) & ~3 :]


def attributes(data: bytes) -> Mapping[int, bytes]:
    """The attributes in `data` by type; the last of a type wins. Raises NetworkError."""
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            raise NetworkError("netlink: an attribute longer than its message")
        found[kind & NLA_TYPE_MASK] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def error_number(body: bytes) -> int:
    """errno of an NLMSG_ERROR's body; 0 is an acknowledgement."""
    if len(body) < 4:
        raise NetworkError("netlink: an error without its number")
    return -int(struct.unpack_from("=i", body)[0])
