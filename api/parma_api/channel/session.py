"""All streams of one channel: bytes in, bytes out, nothing else (docs/protocol-channel.md has the table of frames).

Each direction of a stream carries at most the credit that its receiver granted. What a reader does not take stays
here, within that credit; so a reader that stalls stops its own stream's sender and nobody else.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, NamedTuple

from parma_api.channel.frame import (
    MAX_DATA,
    MAX_GARBAGE,
    ChannelError,
    Credit,
    Data,
    Fin,
    FrameDecoder,
    Hello,
    Reset,
    data_header,
    encode_credit,
    encode_fin,
    encode_hello,
    encode_reset,
)
from parma_api.channel.order import CONTROL, SendOrder
from parma_api.channel.state import DoneIds, StreamState
from parma_api.status import FailedPreconditionError, ResourceExhaustedError

WINDOW: Final = 256 << 10
"""Bytes that a stream's sender may have under way at first."""
GROWN: Final = 8
"""Times that, at most, for a stream whose reader keeps up: each grant costs the sender a wait."""
ROOM: Final = 32 << 20
"""Bytes by which all windows of a channel together may grow."""
CONTROL_WINDOW: Final = (8 << 20) + MAX_DATA
"""Of stream 0: more than the largest call and the largest answer."""
MAX_CREDIT: Final = 1 << 31
MAX_STREAM_ID: Final = (1 << 32) - 1
BATCH: Final = 2 * MAX_DATA
"""Bytes that `next_batch` collects for one write below."""


class Side(enum.Enum):
    """Whose end of the channel this is."""

    HOST = "host"
    """Connects, allocates stream ids."""
    GUEST = "guest"


MAX_STREAMS: Final = {Side.HOST: 512, Side.GUEST: 2048}


class ResetCode(enum.IntEnum):
    """Why a stream was dropped."""

    ABORTED = 1
    TOO_MANY_STREAMS = 2


class Batch(NamedTuple):
    """Frames for one write."""

    pieces: list[bytes | memoryview]
    streams: list[int]
    """Those that made room by it."""
    finished: list[int]
    """Those whose last bytes these are."""

    @property
    def data(self) -> bytes:
        """The pieces as one."""
        return b"".join(self.pieces)


class ChannelSession:
    """One end of a channel."""

    def __init__(
        self,
        side: Side,
        *,
        window: int = WINDOW,
        control_window: int = CONTROL_WINDOW,
        max_streams: int | None = None,
        room: int = ROOM,
    ) -> None:
        """max_streams: at once, stream 0 not counted; with `window` and `room` it bounds what a peer can fill.

        The guest takes more than the host opens: it may still be emptying what the host is done with.
        """
        self.side: Final = side
        self._hello = Hello(window, control_window)
        self._peer: Hello | None = None
        self._max_streams = max_streams or MAX_STREAMS[side]
        self._room = room
        self._decoder = FrameDecoder(MAX_GARBAGE if side is Side.HOST else 0)
        self._streams: dict[int, StreamState] = {}
        self._done = DoneIds()
        self._last_id = -1
        """Of the host: the highest id that it allocated."""
        self._order = SendOrder()
        self._urgent: list[bytes] = [encode_hello(self._hello)]
        self._finished: list[int] = []
        self.resets: set[int] = set()
        """Streams opened here that the peer has dropped. The caller takes ids out as it sees them."""
        self._grants: set[int] = set()
        self._add(CONTROL).opened = True

    # --- ids -------------------------------------------------------------------------------------------------------

    def next_id(self) -> int:
        """A stream id that was never used: odd, upward. Host only. Raises ResourceExhaustedError."""
        if self.side is not Side.HOST:
            raise FailedPreconditionError("the host allocates stream ids")
        if self._last_id + 2 > MAX_STREAM_ID:
            raise ResourceExhaustedError("stream ids of this channel are used up")
        self._last_id += 2
        return self._last_id

    def open(self, stream_id: int) -> None:
        """Take part in a stream, once. Raises FailedPreconditionError, ResourceExhaustedError."""
        stream = self._streams.get(stream_id)
        if stream is None:
            if not self._may_exist(stream_id) or stream_id in self._done:
                raise FailedPreconditionError(f"stream {stream_id} cannot be opened (any more)")
            stream = self._add(stream_id)
        if stream.opened:
            raise FailedPreconditionError(f"stream {stream_id} is open already")
        stream.opened = True

    def is_open(self, stream_id: int) -> bool:
        """False once both directions are over and all was taken, or after a reset."""
        return stream_id in self._streams

    def _may_exist(self, stream_id: int) -> bool:
        """Whether an id is one that the host allocates, or already did."""
        if stream_id == CONTROL:
            return True
        known = self.side is Side.GUEST or stream_id <= self._last_id
        return bool(stream_id % 2) and 0 < stream_id <= MAX_STREAM_ID and known

    def _add(self, stream_id: int) -> StreamState:
        if len(self._streams) > self._max_streams:
            raise ResourceExhaustedError(f"{self._max_streams} streams are open, no more")
        window = self._hello.control_window if stream_id == CONTROL else self._hello.window
        stream = StreamState(stream_id, self._initial_credit(stream_id), window)
        self._streams[stream_id] = stream
        return stream

    def _initial_credit(self, stream_id: int) -> int:
        if self._peer is None:
            return 0
        return self._peer.control_window if stream_id == CONTROL else self._peer.window

    # --- sending ---------------------------------------------------------------------------------------------------

    @property
    def wants_write(self) -> bool:
        """Whether `next_batch` would give something."""
        return bool(self._urgent or self._grants or self._order)

    def queued(self, stream_id: int) -> int:
        """Bytes that wait for credit or their turn; 0 for a stream that is over."""
        stream = self._streams.get(stream_id)
        return stream.queued if stream else 0

    def send(self, stream_id: int, data: bytes) -> None:
        """Queue data, by reference. Raises FailedPreconditionError after `finish` or the stream's end."""
        stream = self._require(stream_id)
        if stream.fin_due:
            raise FailedPreconditionError(f"stream {stream_id} is finished")
        if data:
            stream.queue.append(memoryview(data))
            stream.queued += len(data)
            self._schedule(stream)

    def finish(self, stream_id: int) -> None:
        """Half close, behind what is queued. Idempotent."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.fin_due:
            stream.fin_due = True
            self._finish_if_drained(stream)

    def reset(self, stream_id: int, code: ResetCode = ResetCode.ABORTED) -> None:
        """Drop both directions; also for an id that was never opened here. Idempotent."""
        if stream_id == CONTROL:
            raise FailedPreconditionError("stream 0 ends with its channel only")
        if stream_id not in self._done and self._may_exist(stream_id):
            self._urgent.append(encode_reset(stream_id, code))
            self._end(stream_id)

    def next_batch(self) -> Batch | None:
        """The next frames to write: greetings, credit and resets, then data, one frame from each stream in turn."""
        pieces: list[bytes | memoryview] = [*self._urgent]
        if self._grants:
            pieces += self._take_grants()
        finished, touched = self._finished, []
        self._urgent, self._finished = [], []
        size = 0
        while self._order and size < BATCH:
            stream = self._streams[self._order.next()]
            size += self._data_frame(stream, pieces)
            touched.append(stream.stream_id)
            if stream.queue:
                self._schedule(stream)
            elif stream.fin_due:
                self._finish_if_drained(stream)
        # A FIN that the loop has put into _urgent goes out with the next batch, behind its data.
        return Batch(pieces, touched, finished) if pieces else None

    def _data_frame(self, stream: StreamState, pieces: list[bytes | memoryview]) -> int:
        """Append one frame, as much of the first piece as credit and a frame's size allow; returns its size."""
        view = stream.queue[0]
        length = len(view)
        if length <= MAX_DATA and length <= stream.credit:
            pieces += (data_header(stream.stream_id, length), view)
            stream.queue.popleft()
        else:
            length = min(MAX_DATA, stream.credit, length)
            pieces += (data_header(stream.stream_id, length), view[:length])
            stream.queue[0] = view[length:]
        stream.credit -= length
        stream.queued -= length
        return length

    def _schedule(self, stream: StreamState) -> None:
        if stream.sendable:
            self._order.add(stream.stream_id)

    def _finish_if_drained(self, stream: StreamState) -> None:
        if stream.fin_due and not stream.fin_sent and not stream.queue:
            self._urgent.append(encode_fin(stream.stream_id))
            self._finished.append(stream.stream_id)
            stream.fin_sent = True
            self._end_if_over(stream)

    def _take_grants(self) -> Iterator[bytes]:
        due, self._grants = self._grants, set()
        for stream_id in sorted(due):
            stream = self._streams.get(stream_id)
            if stream is not None and not stream.fin_received:
                self._widen(stream)
                yield encode_credit(stream_id, stream.granting)
                stream.allowance += stream.granting
                stream.granting = 0

    def _widen(self, stream: StreamState) -> None:
        """Double the window of a stream whose reader has taken all that came: the sender waits for us, not for it."""
        if stream.received.size or stream.stream_id == CONTROL:
            return
        more = min(stream.window, GROWN * self._hello.window - stream.window, self._room)
        stream.window += more
        stream.granting += more
        self._room -= more

    # --- receiving -------------------------------------------------------------------------------------------------

    def take(self, stream_id: int, n: int) -> bytes:
        """Up to n bytes that have come; b"" when there are none now, or none any more (`at_end`)."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return b""
        data = stream.received.take(n)
        stream.granting += len(data)
        if stream.granting >= stream.window // 2:
            self._grants.add(stream_id)
        if stream.fin_received:
            self._end_if_over(stream)
        return data

    def at_end(self, stream_id: int) -> bool:
        """Whether nothing more can come: the peer has finished and all was taken, or the stream is over."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.at_end

    @property
    def read_size(self) -> int:
        """How much is best read from below next."""
        return self._decoder.read_size

    def receive(self, data: bytes) -> list[int]:
        """Take bytes from below; returns the streams for which something has changed. Raises ChannelError."""
        touched: list[int] = []
        for frame in self._decoder.feed(data):
            if isinstance(frame, Data):
                self._on_data(frame)
            elif isinstance(frame, Hello):
                touched += self._greeted(frame)
                continue
            else:
                self._on_other(frame)
            touched.append(frame.stream_id)
        return touched

    def _greeted(self, hello: Hello) -> list[int]:
        if self._peer is not None:
            raise ChannelError("the peer greets twice")
        self._peer = hello
        for stream in self._streams.values():
            self._add_credit(stream, self._initial_credit(stream.stream_id))
        return list(self._streams)

    def _on_data(self, frame: Data) -> None:
        stream = self._find(frame.stream_id)
        if stream is None:
            return
        if stream.fin_received:
            raise ChannelError(f"stream {frame.stream_id}: data after the end")
        stream.allowance -= len(frame.payload)
        if stream.allowance < 0:
            raise ChannelError(f"stream {frame.stream_id}: more data than credit")
        stream.received.append(frame.payload)

    def _on_other(self, frame: Credit | Fin | Reset) -> None:
        if isinstance(frame, Reset):
            self._on_reset(frame.stream_id)
            return
        stream = self._find(frame.stream_id)
        if stream is None:
            return
        if isinstance(frame, Credit):
            self._add_credit(stream, frame.amount)
        elif stream.fin_received:
            raise ChannelError(f"stream {frame.stream_id}: ends twice")
        else:
            stream.fin_received = True
            self._end_if_over(stream)

    def _on_reset(self, stream_id: int) -> None:
        """Also of an id that is not open here yet: it never will be."""
        if stream_id == CONTROL or not self._may_exist(stream_id):
            raise ChannelError(f"stream {stream_id} cannot be reset")
        stream = self._streams.get(stream_id)
        if stream is not None and stream.opened:
            self.resets.add(stream_id)
        if stream_id not in self._done:
            self._end(stream_id)

    def _find(self, stream_id: int) -> StreamState | None:
        """The stream of a frame; made when the peer is ahead of us; None when its frames are to be dropped."""
        stream = self._streams.get(stream_id)
        if stream is not None or stream_id in self._done:
            return stream
        if not self._may_exist(stream_id):
            raise ChannelError(f"stream {stream_id} was never allocated")
        try:
            return self._add(stream_id)
        except ResourceExhaustedError:
            self.reset(stream_id, ResetCode.TOO_MANY_STREAMS)
            return None

    def _add_credit(self, stream: StreamState, amount: int) -> None:
        stream.credit += amount
        if stream.credit > MAX_CREDIT:
            raise ChannelError(f"stream {stream.stream_id}: credit beyond all measure")
        self._schedule(stream)

    def _require(self, stream_id: int) -> StreamState:
        stream = self._streams.get(stream_id)
        if stream is None:
            raise FailedPreconditionError(f"stream {stream_id} is over")
        return stream

    def _end_if_over(self, stream: StreamState) -> None:
        """Stream 0 stays until its channel ends."""
        if stream.over and stream.stream_id != CONTROL:
            self._end(stream.stream_id)

    def _end(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._room += stream.window - self._hello.window
            self._order.discard(stream_id)
        self._done.add(stream_id)
        self._grants.discard(stream_id)
