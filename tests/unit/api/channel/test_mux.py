"""Two multiplexers joined by a socket pair, and each against a scripted peer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from parma_api.channel.frame import (
    ChannelError,
    FrameDecoder,
    Hello,
    data_header,
    encode_fin,
    encode_hello,
)
from parma_api.channel.mux import SEND_BUFFER, Mux, MuxStream
from parma_api.channel.session import WINDOW, Side
from parma_api.channel.stream import (
    ByteStream,
    FdStream,
    SocketStream,
    StreamClosedError,
    stream_pair,
)
from parma_api.channel.stream import Data as Bytes
from parma_api.gen.parma.agent.v1 import (
    AgentBase,
    AgentStub,
    FileEntry,
    HealthRequest,
    HealthResponse,
    PutFilesRequest,
    PutFilesResponse,
)
from parma_api.status import FailedPreconditionError
from parma_api.ttrpc.client import TtrpcClient
from parma_api.ttrpc.server import TtrpcServer

GREETING = encode_hello(Hello(WINDOW, WINDOW))


@asynccontextmanager
async def joined(left: ByteStream, right: ByteStream) -> AsyncIterator[tuple[Mux, Mux]]:
    host, guest = Mux(left, side=Side.HOST), Mux(right, side=Side.GUEST)
    async with asyncio.TaskGroup() as group:
        group.create_task(host.run())
        group.create_task(guest.run())
        try:
            yield host, guest
        finally:
            host.abort()
            guest.abort()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Mux, Mux]]:
    async with joined(*stream_pair()) as muxes:
        yield muxes


@asynccontextmanager
async def streams() -> AsyncIterator[tuple[MuxStream, MuxStream]]:
    async with pair() as (host, guest):
        stream_id = host.next_id()
        yield host.open(stream_id), guest.open(stream_id)


async def read_all(stream: ByteStream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def write_all(stream: ByteStream, data: bytes) -> None:
    await stream.write(data)
    await stream.finish()


# --- bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 5 << 20])
async def test_both_directions_and_half_close(size: int) -> None:
    there, back = os.urandom(size), os.urandom(size)
    async with streams() as (host, guest), asyncio.TaskGroup() as group:
        group.create_task(write_all(host, there))
        group.create_task(write_all(guest, back))
        at_guest = group.create_task(read_all(guest))
        at_host = group.create_task(read_all(host))
        assert await at_guest == there
        assert await at_host == back


async def test_one_direction_ends_while_the_other_goes_on() -> None:
    async with streams() as (host, guest):
        await write_all(host, b"request")
        assert await read_all(guest) == b"request"
        assert await guest.read() == b""
        for number in range(50):
            await guest.write(b"%d," % number)
        await guest.finish()
        assert (await read_all(host)).endswith(b"48,49,")
        await host.finish()
        with pytest.raises(StreamClosedError):
            await host.write(b"late")


async def test_all_that_was_written_arrives_although_the_writer_is_done_first() -> None:
    async with streams() as (host, guest), asyncio.TaskGroup() as group:
        group.create_task(write_all(guest, bytes(3 * WINDOW)))
        await asyncio.sleep(0)
        assert len(await read_all(host)) == 3 * WINDOW


async def test_reads_take_no_more_than_asked() -> None:
    async with streams() as (host, guest):
        await host.write(b"abcdef")
        assert [await guest.read(4), await guest.read(4)] == [b"abcd", b"ef"]


async def test_what_is_written_may_change_afterwards() -> None:
    async with streams() as (host, guest):
        content = bytearray(b"before")
        await host.write(content)
        content[:] = b"AFTER!"
        assert await guest.read() == b"before"


async def test_many_streams_at_once() -> None:
    async with pair() as (host, guest), asyncio.TaskGroup() as group:
        reads = []
        for number in range(100):
            stream_id = host.next_id()
            group.create_task(write_all(host.open(stream_id), bytes([number]) * 100_000))
            reads.append(group.create_task(read_all(guest.open(stream_id))))
        for number, read in enumerate(reads):
            assert await read == bytes([number]) * 100_000


# --- stalls --------------------------------------------------------------------------------------------------------


async def test_a_stalled_reader_stops_its_own_writer_only() -> None:
    async with pair() as (host, guest), asyncio.TaskGroup() as group:
        stalled, other = host.next_id(), host.next_id()
        writing = group.create_task(write_all(guest.open(stalled), bytes(10 * WINDOW)))
        unread = host.open(stalled)
        source = guest.open(other)
        group.create_task(write_all(source, bytes(10 * WINDOW)))
        assert len(await read_all(host.open(other))) == 10 * WINDOW
        await guest.control.write(b"control still works")
        assert await host.control.read() == b"control still works"
        assert not writing.done()
        assert host.session._streams[stalled].received.size <= WINDOW
        assert guest.session.queued(stalled) <= 10 * WINDOW
        assert len(await read_all(unread)) == 10 * WINDOW
        await writing


async def test_a_writer_waits_while_much_is_queued() -> None:
    async with streams() as (host, guest), asyncio.TaskGroup() as group:

        async def produce() -> None:
            for _ in range(100):
                await guest.write(bytes(65536))

        producing = group.create_task(produce())
        assert await host.read(1) == b"\0"
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not producing.done()
        assert guest._session.queued(guest.stream_id) <= SEND_BUFFER + 65536
        producing.cancel()


async def test_a_cancelled_write_breaks_nothing() -> None:
    async with pair() as (host, guest):
        first, second = host.next_id(), host.next_id()
        stuck = asyncio.create_task(host.open(first).write(bytes(4 * WINDOW)))
        await asyncio.sleep(0)
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        await host.open(second).write(b"whole")
        assert await guest.open(second).read() == b"whole"


# --- ends ----------------------------------------------------------------------------------------------------------


async def test_abort_is_seen_by_the_peer() -> None:
    async with streams() as (host, guest), asyncio.TaskGroup() as group:
        reading = group.create_task(failure(guest.read))
        await asyncio.sleep(0)
        host.abort()
        host.abort()
        assert "reset by the peer" in await reading
        assert await host.read() == b""
        await failure(lambda: guest.write(b"x"))
        await failure(guest.finish)
        await failure(lambda: host.write(b"x"))


async def test_an_id_given_up_before_the_guest_opened_it() -> None:
    async with pair() as (host, guest):
        stream_id = host.next_id()
        host.drop(stream_id)
        await host.control.write(b"x")
        await guest.control.read()
        with pytest.raises(FailedPreconditionError):
            guest.open(stream_id)


async def test_loss_of_the_channel() -> None:
    left, right = stream_pair()
    async with joined(left, right) as (host, guest), asyncio.TaskGroup() as group:
        stream_id = host.next_id()
        stream, peer = host.open(stream_id), guest.open(stream_id)
        await peer.write(b"last words")
        await peer.finish()
        await guest.control.write(b"all of it is here")
        await host.control.read()
        reading = group.create_task(failure(host.control.read))
        writing = group.create_task(failure(lambda: stream.write(bytes(4 * WINDOW))))
        await asyncio.sleep(0)
        guest.abort()
        assert "lost" in await reading
        await writing
        assert await stream.read() == b"last words"
        assert await stream.read() == b""
        with pytest.raises(StreamClosedError):
            host.open(host.next_id())


async def test_to_abort_control_is_to_abort_the_channel() -> None:
    async with pair() as (host, guest):
        host.control.abort()
        assert host.closed
        await failure(guest.control.read)


async def test_a_mux_that_was_aborted_does_not_run() -> None:
    left, right = stream_pair()
    mux = Mux(left, side=Side.HOST)
    mux.abort()
    await mux.run()
    right.abort()


async def test_cancelling_run_ends_the_channel() -> None:
    left, right = stream_pair()
    mux = Mux(left, side=Side.HOST)
    running = asyncio.create_task(mux.run())
    assert FrameDecoder().feed(await right.read()) == [Hello(WINDOW, (8 << 20) + 65536)]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert mux.closed
    assert await right.read() == b""
    right.abort()


async def failure(operation: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(StreamClosedError) as caught:
        await operation()
    return caught.value.message


# --- a hostile or unlucky peer -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="no greeting"),
        pytest.param(GREETING + data_header(2, 1) + b"x", id="even id"),
        pytest.param(GREETING + bytes(12), id="no frame"),
    ],
)
async def test_a_breach_ends_the_channel_with_an_error(raw: bytes) -> None:
    left, right = stream_pair()
    guest = Mux(left, side=Side.GUEST)
    await right.write(raw)
    with pytest.raises(ChannelError):
        await guest.run()
    assert guest.closed
    await failure(guest.control.read)
    right.abort()


async def test_the_host_reads_over_stale_bytes() -> None:
    left, right = stream_pair()
    host = Mux(left, side=Side.HOST)
    async with asyncio.TaskGroup() as group:
        group.create_task(host.run())
        await right.write(os.urandom(1000) + GREETING + data_header(0, 2) + b"ok")
        assert await host.control.read() == b"ok"
        host.abort()
    right.abort()


async def test_eof_of_the_stream_below_is_an_end() -> None:
    left, right = stream_pair()
    host = Mux(left, side=Side.HOST)
    await right.write(GREETING + data_header(0, 2) + b"ok" + encode_fin(0))
    await right.finish()
    await host.run()
    assert await host.control.read() == b"ok"
    assert await host.control.read() == b""
    right.abort()


# --- other streams below -------------------------------------------------------------------------------------------


def pipes() -> tuple[FdStream, FdStream]:
    (there_out, there_in), (back_out, back_in) = os.pipe(), os.pipe()
    return FdStream(there_out, back_in), FdStream(back_out, there_in)


class Wrapped:
    """A stream that is no descriptor."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream

    async def read(self, n: int = 65536) -> bytes:
        return await self._stream.read(min(n, 1000))

    async def write(self, data: Bytes) -> None:
        await self._stream.write(data)

    async def finish(self) -> None:
        await self._stream.finish()

    def abort(self) -> None:
        self._stream.abort()


def wrapped() -> tuple[Wrapped, Wrapped]:
    left, right = stream_pair()
    return Wrapped(left), Wrapped(right)


@pytest.mark.parametrize("make", [pipes, wrapped])
async def test_over_other_streams(make: Callable[[], tuple[ByteStream, ByteStream]]) -> None:
    content = os.urandom(1 << 20)
    async with joined(*make()) as (host, guest), asyncio.TaskGroup() as group:
        stream_id = host.next_id()
        group.create_task(write_all(host.open(stream_id), content))
        assert await read_all(guest.open(stream_id)) == content


# --- ttrpc on stream 0 ---------------------------------------------------------------------------------------------


class Agent(AgentBase):
    def __init__(self) -> None:
        self.size = 0

    async def health(self, health_request: HealthRequest) -> HealthResponse:
        return HealthResponse(version="7")

    async def put_files(self, put_files_request: PutFilesRequest) -> PutFilesResponse:
        self.size = len(put_files_request.entries[0].content)
        return PutFilesResponse()


async def test_calls_beside_stalled_streams() -> None:
    agent = Agent()
    async with pair() as (host, guest), asyncio.TaskGroup() as group:
        serving = group.create_task(TtrpcServer([agent]).serve(guest.control))
        for _ in range(5):
            stream_id = host.next_id()
            guest.session.open(stream_id)
            guest.session.send(stream_id, bytes(2 * WINDOW))
        guest.wake()
        async with TtrpcClient(host.control) as client:
            stub = AgentStub(client)
            assert (await stub.health(HealthRequest())).version == "7"
            content = bytes((4 << 20) - 1000)
            await stub.put_files(PutFilesRequest(entries=[FileEntry(content=content)]))
            assert agent.size == len(content)
        await serving


# --- what it leaves, and costs -------------------------------------------------------------------------------------


async def test_finished_streams_leave_nothing_behind() -> None:
    async with pair() as (host, guest):
        for number in range(50):
            stream_id = host.next_id()
            ours, theirs = host.open(stream_id), guest.open(stream_id)
            if number % 2:
                await asyncio.gather(write_all(ours, b"a"), write_all(theirs, b"b"))
                await asyncio.gather(read_all(ours), read_all(theirs))
            else:
                await ours.write(b"a")
                await theirs.read()
                ours.abort()
                await failure(theirs.read)
        for mux in (host, guest):
            assert set(mux.session._streams) == {0}
            assert set(mux._streams) == {0}
            assert not mux.session.resets
            assert not mux.session._done._above


async def test_idle_connections_stay() -> None:
    async with streams() as (host, guest):
        await asyncio.sleep(0.05)
        await host.write(b"x")
        assert await guest.read() == b"x"


async def _carry(source: ByteStream, target: ByteStream, total: int) -> float:
    async def produce() -> None:
        block = bytes(65536)
        for _ in range(total // len(block)):
            await source.write(block)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        left = total
        while left:
            left -= len(await target.read())
    return time.perf_counter() - started


async def test_throughput_against_the_bare_stream() -> None:
    """At least half of it on a quiet machine; a third is asked for here, of the best of five."""
    total = 32 << 20
    ratios = []
    for _ in range(5):
        left, right = stream_pair()
        bare = await _carry(left, right, total)
        left.abort()
        right.abort()
        async with streams() as (host, guest):
            ratios.append(bare / await _carry(guest, host, total))
    assert max(ratios) > 1 / 3
