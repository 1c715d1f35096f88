"""The requests that the kernel's network block device sends (include/uapi/linux/nbd.h). Pure.

request  magic u32 0x25609513, flags u16, type u16, handle u64, offset u64, length u32; a write's data follows
reply    magic u32 0x67446698, error u32, handle u64; a read's data follows
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from parma_api.status import InvalidArgumentError

MAX_LENGTH: Final = 32 << 20
_REQUEST: Final = struct.Struct(">IHHQQI")
_REPLY: Final = struct.Struct(">IIQ")
_REQUEST_MAGIC: Final = 0x25609513
_REPLY_MAGIC: Final = 0x67446698
REQUEST_SIZE: Final = _REQUEST.size


class Command(enum.IntEnum):
    """What is asked for."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `command` None: one that was not offered."""

    command: Command | None
    handle: int
    offset: int
    length: int


def parse(data: bytes) -> Request:
    """Raises InvalidArgumentError: not from the kernel, or longer than it ever asks for."""
    magic, _flags, kind, handle, offset, length = _REQUEST.unpack(data)
    if magic != _REQUEST_MAGIC or length > MAX_LENGTH:
        raise InvalidArgumentError("no request of the kernel's")
    command = Command(kind) if kind in tuple(Command) else None
    return Request(command, handle, offset, length)


def reply(handle: int, error: int = 0) -> bytes:
    """The head of an answer; `error` is an errno."""
    return _REPLY.pack(_REPLY_MAGIC, error, handle)
