"""Frames of the channel: a header of twelve bytes, then a payload (docs/protocol-channel.md).

      0      1 .. 3      4 .. 7       8 .. 11
    +------+----------+-----------+-----------+
    | type | 0  0  0  | stream id |  length   |  payload ...          numbers big-endian
    +------+----------+-----------+-----------+

The payload of DATA is passed on as it arrives, never collected: a frame cut by the stream below costs nothing.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple, TypeAlias

from parma_api.status import DataLossError

HEADER: Final = struct.Struct(">B3xII")
U32: Final = struct.Struct(">I")
HELLO_BODY: Final = struct.Struct(
    ">8sIII"
)  # magic, version, window of a stream, window of stream 0

MAGIC: Final = b"\x89Parma\r\n"
"""As in PNG: a first byte with the high bit, and line ends, so that a path that is not 8-bit clean breaks it."""
VERSION: Final = 1
MAX_DATA: Final = 65536
"""Bytes of one DATA frame."""
BULK: Final = 16384
"""Bytes from which on a payload is worth a read of its own."""
READ_SIZE: Final = 65536
MAX_GARBAGE: Final = 65536
"""Bytes before HELLO that the connecting side reads over."""


class ChannelError(DataLossError):
    """The peer broke the channel's protocol: the channel is over."""


class FrameType(enum.IntEnum):
    """What a frame says of its stream."""

    HELLO = 1
    """Stream 0, once, first: who speaks, and how much it takes unasked."""
    DATA = 2
    CREDIT = 3
    """So many bytes more may be sent."""
    FIN = 4
    """No more data will come; the other direction stays open."""
    RESET = 5
    """Both directions are over at once; a code says why."""


_PAYLOADS: Final = {
    FrameType.HELLO: HELLO_BODY.size,
    FrameType.CREDIT: U32.size,
    FrameType.FIN: 0,
    FrameType.RESET: U32.size,
}
HELLO_PREFIX: Final = HEADER.pack(FrameType.HELLO, 0, HELLO_BODY.size) + MAGIC


class Hello(NamedTuple):
    """The peer takes this many bytes on each stream before it grants more."""

    window: int
    control_window: int


class Data(NamedTuple):
    """Some bytes of a stream: a DATA frame's payload, or a part of it."""

    stream_id: int
    payload: bytes


class Credit(NamedTuple):
    """The peer takes this many bytes more."""

    stream_id: int
    amount: int


class Fin(NamedTuple):
    """The peer has written all."""

    stream_id: int


class Reset(NamedTuple):
    """The peer has dropped the stream."""

    stream_id: int
    code: int


Frame: TypeAlias = Hello | Data | Credit | Fin | Reset


def encode_hello(hello: Hello) -> bytes:
    """The first frame."""
    body = HELLO_BODY.pack(MAGIC, VERSION, hello.window, hello.control_window)
    return HEADER.pack(FrameType.HELLO, 0, len(body)) + body


def encode_credit(stream_id: int, amount: int) -> bytes:
    """Grant more."""
    return HEADER.pack(FrameType.CREDIT, stream_id, U32.size) + U32.pack(amount)


def encode_fin(stream_id: int) -> bytes:
    """Half close."""
    return HEADER.pack(FrameType.FIN, stream_id, 0)


def encode_reset(stream_id: int, code: int) -> bytes:
    """Drop a stream."""
    return HEADER.pack(FrameType.RESET, stream_id, U32.size) + U32.pack(code)


def data_header(stream_id: int, length: int) -> bytes:
    """What goes before a payload of 1 to MAX_DATA bytes."""
    return HEADER.pack(FrameType.DATA, stream_id, length)


class FrameDecoder:
    """Bytes in, frames out. Raises ChannelError for what no version-1 peer sends."""

    def __init__(self, garbage: int = 0) -> None:
        """`garbage`: bytes before the peer's HELLO that are read over, as a serial port may hold stale ones."""
        self._garbage = garbage
        self._in_sync = False
        self._kept = b""
        """The beginning of a header or of a short payload, or what is searched for HELLO."""
        self._data_stream = 0
        self._data_left = 0
        self._bulk = False
        """Whether the last DATA frame was a large one."""

    @property
    def read_size(self) -> int:
        """How much is best read next.

        In bulk data a payload alone, and then a header alone: then what was read is the payload, and is not copied.
        """
        if self._data_left >= BULK:
            return self._data_left
        if self._bulk and not self._data_left and len(self._kept) < HEADER.size:
            return HEADER.size - len(self._kept)
        return READ_SIZE

    def feed(self, data: bytes) -> list[Frame]:
        """The frames, and parts of DATA frames, that these bytes bring."""
        if 0 < len(data) <= self._data_left:
            self._data_left -= len(data)
            return [Data(self._data_stream, data)]
        if self._kept:
            data, self._kept = self._kept + data, b""
        position = 0
        if not self._in_sync:
            position = self._synchronise(data)
            if not self._in_sync:
                return []
        frames: list[Frame] = []
        end = len(data)
        while position < end:
            if self._data_left:
                stop = min(end, position + self._data_left)
                self._data_left -= stop - position
                frames.append(Data(self._data_stream, data[position:stop]))
                position = stop
                continue
            if end - position < HEADER.size:
                break
            length, frame_type, stream_id = _read_header(data, position)
            body = position + HEADER.size
            if frame_type == FrameType.DATA:
                self._data_stream, self._data_left = stream_id, length
                self._bulk = length >= BULK
                position = body
                continue
            if end - body < length:
                break
            position = body + length
            frames.append(_read_body(frame_type, stream_id, data[body:position]))
        self._kept = data[position:]
        return frames

    def _synchronise(self, data: bytes) -> int:
        """Where HELLO begins; keeps what may be its beginning."""
        found = data.find(HELLO_PREFIX, 0, self._garbage + len(HELLO_PREFIX))
        if found >= 0:
            self._in_sync = True
            return found
        # What cannot begin a HELLO any more is garbage.
        keep = len(data)
        for start in range(max(0, len(data) - len(HELLO_PREFIX) + 1), len(data) + 1):
            if HELLO_PREFIX.startswith(data[start:]):
                keep = start
                break
        if keep > self._garbage:
            raise ChannelError("the peer does not begin with the channel's greeting")
        self._garbage -= keep
        self._kept = data[keep:]
        return 0


def _read_header(data: bytes, position: int) -> tuple[int, int, int]:
    """Length, type, stream id."""
    frame_type, stream_id, length = HEADER.unpack_from(data, position)
    if data[position + 1 : position + 4] != b"\0\0\0":
        raise ChannelError("reserved bytes of a header are not zero")
    if frame_type == FrameType.DATA:
        if not 0 < length <= MAX_DATA:
            raise ChannelError(f"stream {stream_id}: {length} bytes of data in a frame")
    elif _PAYLOADS.get(frame_type) != length:
        raise ChannelError(f"frame of type {frame_type} and {length} bytes")
    return length, frame_type, stream_id


def _read_body(frame_type: int, stream_id: int, body: bytes) -> Frame:
    if frame_type == FrameType.CREDIT:
        return Credit(stream_id, U32.unpack(body)[0])
    if frame_type == FrameType.FIN:
        return Fin(stream_id)
    if frame_type == FrameType.RESET:
        return Reset(stream_id, U32.unpack(body)[0])
    magic, version, window, control_window = HELLO_BODY.unpack(body)
    if magic != MAGIC or stream_id:
        raise ChannelError("a greeting that is none")
    if version != VERSION:
        raise ChannelError(f"the peer speaks version {version} of the channel, we {VERSION}")
    return Hello(window, control_window)
