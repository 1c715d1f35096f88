"""Frames: a header of ten bytes, then data (containerd.md 1.1).

  0        1        2        3        4 .. 7      8      9
+--------+--------+--------+--------+-----------+------+-------+
| length of data, big-endian, <= 4 MiB | stream id | type | flags |  data ...
+--------+--------+--------+--------+-----------+------+-------+
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

HEADER: Final = struct.Struct(">IIBB")
MAX_DATA: Final = 4 << 20
"""Bytes that a frame may carry."""


class FrameType(enum.IntEnum):
    """What a frame is; others are ignored."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


class Flag(enum.IntFlag):
    """Of Request and Data frames; a Response has none."""

    NONE = 0
    REMOTE_CLOSED = 0x01
    """The sender will send no more on this stream."""
    REMOTE_OPEN = 0x02
    """Request only: Data frames of the sender follow."""
    NO_DATA = 0x04
    """Data only: the frame carries no message (an empty one without this flag is a message)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `type` and `flags` are as on the wire: a peer may send values that we do not know."""

    stream_id: int
    type: int
    flags: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Oversized:
    """A frame whose data was thrown away because it is longer than allowed."""

    stream_id: int
    type: int
    length: int


def encode(stream_id: int, frame_type: FrameType, flags: int, data: bytes) -> bytes:
    """Header and data as one unit. The caller has checked the length."""
    return HEADER.pack(len(data), stream_id, frame_type, flags) + data


class FrameDecoder:
    """Bytes in, frames out; keeps what is not yet whole."""

    def __init__(self, max_data: int = MAX_DATA) -> None:
        self.max_data: Final = max_data
        self._buffer = bytearray()
        self._discard = 0

    @property
    def idle(self) -> bool:
        """Whether the stream may end here: no frame has begun."""
        return not self._buffer and not self._discard

    def feed(self, data: bytes) -> list[Frame | Oversized]:
        """The frames that data completes, in order."""
        frames: list[Frame | Oversized] = []
        buffer = self._buffer
        buffer += data
        start = self._skip(0)
        while len(buffer) - start >= HEADER.size:
            length, stream_id, frame_type, flags = HEADER.unpack_from(buffer, start)
            body = start + HEADER.size
            if length > self.max_data:
                frames.append(Oversized(stream_id, frame_type, length))
                self._discard = length
                start = self._skip(body)
                continue
            if len(buffer) - body < length:
                break
            start = body + length
            frames.append(Frame(stream_id, frame_type, flags, bytes(buffer[body:start])))
        del buffer[:start]
        return frames

    def _skip(self, start: int) -> int:
        """Throw away what is left of an oversized frame; returns where the next one begins."""
        skipped = min(self._discard, len(self._buffer) - start)
        self._discard -= skipped
        return start + skipped
