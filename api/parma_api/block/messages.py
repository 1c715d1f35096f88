"""Device-mapper's ioctl buffers (include/uapi/linux/dm-ioctl.h). Pure."""

from __future__ import annotations

import struct

from parma_api.block.tables import Target

DEV_CREATE, DEV_REMOVE, DEV_SUSPEND, DEV_STATUS, TABLE_LOAD, TABLE_STATUS = 3, 4, 6, 7, 9, 12
READONLY = 1
STATUS_TABLE = 1 << 4
SECURE_DATA = 1 << 15
"""The kernel wipes its copy of the request."""
BUFFER = 16384
_REQUEST = 0xC138FD00
# version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid, padding
_HEADER = struct.Struct("=3I I I I i I I 4x Q 128s 129s 7x")
# sector_start, length, status, next, target_type
_SPEC = struct.Struct("=QQiI16s")


def request(number: int) -> int:
    """The ioctl of that number."""
    return _REQUEST | number


def pack(
    name: str, flags: int = 0, target: Target | None = None, *, size: int = BUFFER
) -> bytearray:
    """The buffer: the header, and the one line of a table."""
    payload = b"" if target is None else _pack_target(target)
    total = max(size, _HEADER.size + len(payload))
    count = 0 if target is None else 1
    header = _HEADER.pack(4, 0, 0, total, _HEADER.size, count, 0, flags, 0, 0, name.encode(), b"")
    return bytearray(header + payload).ljust(total, b"\0")


def _pack_target(target: Target) -> bytes:
    parameters = target.parameters.encode() + b"\0"
    parameters += bytes(-len(parameters) % 8)
    size = _SPEC.size + len(parameters)
    return _SPEC.pack(0, target.length, 0, size, target.kind.encode()) + parameters


def unpack_device(buffer: bytes | bytearray) -> tuple[int, int]:
    """Major and minor in the header."""
    device = _HEADER.unpack_from(buffer)[9]
    return (device >> 8) & 0xFFF, device & 0xFF | (device >> 12) & 0xFFF00


def unpack_targets(buffer: bytes | bytearray) -> list[Target]:
    """The lines in an answer of TABLE_STATUS, each at its own offset from the first."""
    fields = _HEADER.unpack_from(buffer)
    start, count = fields[4], fields[5]
    found: list[Target] = []
    at = start
    for _ in range(count):
        _, length, _, following, kind = _SPEC.unpack_from(buffer, at)
        text = bytes(buffer[at + _SPEC.size :]).split(b"\0", 1)[0]
        found.append(Target(length, kind.rstrip(b"\0").decode(), text.decode()))
        at = start + following
    return found
