"""The multiplexer's asyncio driver: several byte streams over one.

It works in callbacks of the loop, not in tasks: no frame can be cut by a cancelled task, and a frame costs no switch
between tasks, which in Python is most of what a byte costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from parma_api.channel.order import CONTROL
from parma_api.channel.session import (
    CONTROL_WINDOW,
    WINDOW,
    Batch,
    ChannelSession,
    Side,
)
from parma_api.channel.stream import (
    CHUNK,
    ByteStream,
    Data,
    Descriptor,
    StreamClosedError,
    stream_pair,
)
from parma_api.status import FailedPreconditionError

SEND_BUFFER: Final = 256 << 10
"""Bytes queued on a stream above which its writer waits."""
_READS_IN_A_ROW: Final = 16
_BATCHES_IN_A_ROW: Final = 4
_WRITES_IN_A_ROW: Final = 16
"""How long one side may keep the loop to itself when the other never makes it wait."""


class Mux:
    """One end of a channel, made in a running loop. Nothing moves before `run`."""

    def __init__(
        self,
        stream: ByteStream,
        *,
        side: Side,
        window: int = WINDOW,
        control_window: int = CONTROL_WINDOW,
        max_streams: int | None = None,
    ) -> None:
        self.session: Final = ChannelSession(
            side, window=window, control_window=control_window, max_streams=max_streams
        )
        self._below = stream
        self._descriptor: Descriptor | None = None
        """What is read and written; None before `run`."""
        self._streams: dict[int, MuxStream] = {}
        self._left: Sequence[Data] = ()
        """What the descriptor did not take of `_cut` yet."""
        self._cut: Batch | None = None
        self._again = False
        self._over: asyncio.Future[None] | None = None
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.control: Final = self._attach(CONTROL)
        """Stream 0. To abort it is to abort the channel."""

    def next_id(self) -> int:
        """A new stream id, to open here and to name to the guest. Host only."""
        return self.session.next_id()

    def open(self, stream_id: int) -> MuxStream:
        """A stream whose id both sides agreed on; each id once.

        Raises FailedPreconditionError for an id that was used or never allocated, ResourceExhaustedError when too many
        streams are open, StreamClosedError when the channel is over.
        """
        if self.closed:
            raise StreamClosedError("channel closed")
        self.session.open(stream_id)
        return self._attach(stream_id)

    def drop(self, stream_id: int) -> None:
        """Give up an id that will not be (or no longer is) used here: tells the peer, who may have sent already."""
        self.session.reset(stream_id)
        self.wake()

    async def run(self) -> None:
        """Move bytes until the stream below ends or `abort`. Raises ChannelError when the peer broke the protocol."""
        if isinstance(self._below, Descriptor):
            await self._drive(self._below)
            return
        theirs, ours = stream_pair()
        async with asyncio.TaskGroup() as group:
            bridges = [
                group.create_task(_copy(self._below, theirs)),
                group.create_task(_copy(theirs, self._below)),
            ]
            try:
                await self._drive(ours)
            finally:
                for bridge in bridges:
                    bridge.cancel()
                theirs.abort()

    def abort(self) -> None:
        """Drop the channel and all its streams. Idempotent."""
        self._end(None)

    def wake(self) -> None:
        """Something may be there to write: write what the descriptor takes, and the rest when it is ready."""
        descriptor = self._descriptor
        if descriptor is None or self._left or self.closed:
            return
        for _ in range(_BATCHES_IN_A_ROW):
            batch = self.session.next_batch()
            if batch is None:
                return
            try:
                self._left = descriptor.write_now(batch.pieces)
            except StreamClosedError:
                self._end(None)
                return
            if self._left:
                self._cut = batch
                self.loop.add_writer(descriptor.write_fileno(), self._on_writable)
                return
            self._written(batch)
        if not self._again:
            self._again = True
            self.loop.call_soon(self._wake_again)

    def settle(self, stream: MuxStream) -> None:
        """Let go of a stream that is over on both sides."""
        if stream.done and not self.session.is_open(stream.stream_id):
            self._streams.pop(stream.stream_id, None)

    async def _drive(self, descriptor: Descriptor) -> None:
        if self.closed:
            return
        self._descriptor = descriptor
        self._over = self.loop.create_future()
        self.loop.add_reader(descriptor.read_fileno(), self._on_readable)
        try:
            self.wake()
            await self._over
        finally:
            self._end(None)

    def _wake_again(self) -> None:
        self._again = False
        self.wake()

    def _on_readable(self) -> None:
        descriptor = self._descriptor
        assert descriptor is not None
        session = self.session
        try:
            for _ in range(_READS_IN_A_ROW):
                data = descriptor.read_now(session.read_size)
                if not data:
                    if data is not None:
                        self._end(None)
                    break
                for stream_id in session.receive(data):
                    self._notify(stream_id)
        except StreamClosedError:
            self._end(None)
        except Exception as error:  # noqa: BLE001 - nobody awaits a callback: `run` raises it
            self._end(error)
        self.wake()

    def _on_writable(self) -> None:
        descriptor = self._descriptor
        assert descriptor is not None
        assert self._cut is not None
        try:
            self._left = descriptor.write_now(self._left)
        except StreamClosedError:
            self._end(None)
            return
        if not self._left:
            self.loop.remove_writer(descriptor.write_fileno())
            self._written(self._cut)
            self.wake()

    def _written(self, batch: Batch) -> None:
        for stream_id in batch.finished:
            if stream_id in self._streams:
                self._streams[stream_id].mark_finished()
            self._notify(stream_id)
        for stream_id in batch.streams:
            self._notify(stream_id)

    def _notify(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        resets = self.session.resets
        if stream is not None:
            if resets and stream_id in resets:
                stream.mark_reset()
            stream.wake()
            if stream.done:
                self.settle(stream)
        resets.discard(stream_id)

    def _end(self, error: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        if self._descriptor is not None:
            self.loop.remove_reader(self._descriptor.read_fileno())
            self.loop.remove_writer(self._descriptor.write_fileno())
            self._descriptor.abort()
        self._below.abort()
        if self._over is not None and not self._over.done():
            if error is None:
                self._over.set_result(None)
            else:
                self._over.set_exception(error)
        for stream in list(self._streams.values()):
            stream.wake()

    def _attach(self, stream_id: int) -> MuxStream:
        stream = self._streams[stream_id] = MuxStream(self, stream_id)
        return stream


async def _copy(source: ByteStream, target: ByteStream) -> None:
    """Carry one direction between the channel and a stream that is no descriptor."""
    try:
        while data := await source.read():
            await target.write(data)
        await target.finish()
    except StreamClosedError:
        target.abort()


class MuxStream:
    """One stream of a channel: a ByteStream."""

    def __init__(self, mux: Mux, stream_id: int) -> None:
        self.stream_id: Final = stream_id
        self._mux = mux
        self._session = mux.session
        self._waiting: list[asyncio.Future[None]] = []
        self._aborted = False
        self._reset = False
        self._finished = False
        self._writes = 0

    async def read(self, n: int = CHUNK) -> bytes:
        """1 to n bytes; b"" after the peer's half close. Raises StreamClosedError after a reset, or loss."""
        while not self._aborted:
            data = self._session.take(self.stream_id, n)
            if data:
                if self._session.wants_write:
                    self._mux.wake()
                if self._finished:
                    self._mux.settle(self)
                return data
            if self._reset:
                raise StreamClosedError("stream reset by the peer")
            if self._session.at_end(self.stream_id):
                return b""
            if self._mux.closed:
                raise StreamClosedError("channel lost")
            await self._wait()
        return b""

    async def write(self, data: Data) -> None:
        """All of data is queued, less than SEND_BUFFER of it still here. Raises StreamClosedError."""
        self._require_alive()
        try:
            content = data if isinstance(data, bytes) else bytes(data)
            self._session.send(self.stream_id, content)
        except FailedPreconditionError as error:
            raise StreamClosedError(error.message) from None
        self._mux.wake()
        self._writes += 1
        if self._writes % _WRITES_IN_A_ROW == 0:
            await asyncio.sleep(0)
        while self._session.queued(self.stream_id) > SEND_BUFFER:
            await self._wait()
            self._require_alive()

    async def finish(self) -> None:
        """Half close; returns when all that was written has gone down the channel. Raises StreamClosedError."""
        self._session.finish(self.stream_id)
        self._mux.wake()
        while not self._finished:
            self._require_alive()
            await self._wait()

    def abort(self) -> None:
        """Drop the stream: the peer's reads and writes fail. Of stream 0: drop the channel."""
        if self._aborted:
            return
        self._aborted = True
        if self.stream_id == CONTROL:
            self._mux.abort()
        else:
            self._mux.drop(self.stream_id)
        self.wake()
        self._mux.settle(self)

    @property
    def done(self) -> bool:
        """Whether nothing of this side is still on its way."""
        return self._finished or self._reset or self._aborted

    def mark_reset(self) -> None:
        """The peer has dropped the stream."""
        self._reset = True

    def mark_finished(self) -> None:
        """The half close, and so all that was written before it, has gone down the channel."""
        self._finished = True

    def wake(self) -> None:
        """Something has changed for this stream."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def _require_alive(self) -> None:
        if self._aborted or self._mux.closed or self._reset:
            raise StreamClosedError("stream closed")

    async def _wait(self) -> None:
        future: asyncio.Future[None] = self._mux.loop.create_future()
        self._waiting.append(future)
        await future
