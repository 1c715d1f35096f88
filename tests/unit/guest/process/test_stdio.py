"""Standard streams over a real channel and real pipes."""

# ruff: noqa: PTH116, PTH208 (descriptors)

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from parma_api.channel.mux import Mux, MuxStream
from parma_api.channel.session import Side
from parma_api.channel.stream import StreamClosedError, stream_pair
from parma_api.status import ApiError, InvalidArgumentError
from parma_guest.process import pumps
from parma_guest.process import stdio as modes
from parma_guest.process.background import Background
from parma_guest.process.stdio import NOTICE, Access, Console, Stdio, StreamIds


@dataclass
class Ends:
    host: Mux
    guest: Mux
    background: Background

    def stream(self) -> tuple[int, MuxStream]:
        number = self.host.next_id()
        return number, self.host.open(number)

    def stdio(self, ids: StreamIds, access: Access = Access.GRANTED) -> Stdio:
        return Stdio(self.background, self.guest.open, ids, access)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    left, right = stream_pair()
    host, guest = Mux(left, side=Side.HOST), Mux(right, side=Side.GUEST)
    background = Background()
    async with asyncio.TaskGroup() as group:
        group.create_task(host.run())
        group.create_task(guest.run())
        yield Ends(host, guest, background)
        await background.close()
        host.abort()


async def read_all(stream: MuxStream) -> bytes:
    data = bytearray()
    while part := await stream.read():
        data += part
    return bytes(data)


async def write_for_ever(stream: MuxStream) -> None:
    while True:
        await stream.write(bytes(65536))


async def test_output_arrives_whole_and_ends(ends: Ends) -> None:
    number, stream = ends.stream()
    stdio = ends.stdio(StreamIds(stdout=number))
    child = os.dup(stdio.descriptors.stdout)
    stdio.child_started()
    sent = os.urandom(3 << 20)

    def write() -> None:
        view = memoryview(sent)
        while view:
            view = view[os.write(child, view) :]
        os.close(child)

    received, _ = await asyncio.gather(read_all(stream), asyncio.to_thread(write))
    assert received == sent
    await stdio.drain()


async def test_a_stalled_reader_stops_the_process_and_loses_nothing(ends: Ends) -> None:
    number, stream = ends.stream()
    stdio = ends.stdio(StreamIds(stdout=number))
    child = os.dup(stdio.descriptors.stdout)
    os.set_blocking(child, False)
    stdio.child_started()
    written = 0
    for _ in range(200):
        try:
            written += os.write(child, bytes(65536))
        except BlockingIOError:
            await asyncio.sleep(0)
    assert written < 200 * 65536
    os.close(child)
    assert len(await read_all(stream)) == written


async def test_input_reaches_the_process_and_its_end_too(ends: Ends) -> None:
    number, stream = ends.stream()
    stdio = ends.stdio(StreamIds(stdin=number))
    child = os.dup(stdio.descriptors.stdin)
    stdio.child_started()
    await stream.write(b"hello")
    await stream.finish()
    assert await asyncio.to_thread(os.read, child, 100) == b"hello"
    assert await asyncio.to_thread(os.read, child, 100) == b""
    os.close(child)


async def test_a_process_that_stops_reading_resets_the_hosts_stream(ends: Ends) -> None:
    number, stream = ends.stream()
    stdio = ends.stdio(StreamIds(stdin=number))
    stdio.child_started()  # nobody has the reading end now
    with pytest.raises(StreamClosedError):
        await write_for_ever(stream)


async def test_a_descendant_that_holds_the_pipe_is_not_waited_for(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pumps, "IDLE", 0.05)
    number, stream = ends.stream()
    stdio = ends.stdio(StreamIds(stdout=number))
    held = os.dup(stdio.descriptors.stdout)
    stdio.child_started()
    os.write(held, b"last words")
    await stdio.drain()
    assert await read_all(stream) == b"last words"
    os.set_blocking(held, False)
    for _ in range(100):  # and what it writes blocks nobody
        try:
            os.write(held, bytes(65536))
        except BlockingIOError:
            await asyncio.sleep(0)
    os.close(held)


async def test_a_slow_reader_does_not_hold_the_end_back_for_ever(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "DRAIN", 0.05)
    number, stream = ends.stream()
    stdio = ends.stdio(StreamIds(stdout=number))
    child = os.dup(stdio.descriptors.stdout)
    stdio.child_started()
    sent = 1 << 20
    pending = asyncio.to_thread(lambda: os.write(child, bytes(sent)))
    assert await pending == sent
    os.close(child)
    await stdio.drain()
    assert len(await read_all(stream)) == sent


async def test_withheld_streams_lead_nowhere_and_say_so(ends: Ends) -> None:
    (stdin, to_child), (stdout, output), (stderr, errors) = (ends.stream() for _ in range(3))
    stdio = ends.stdio(StreamIds(stdin, stdout, stderr), Access.WITHHELD)
    for fd in (stdio.descriptors.stdin, stdio.descriptors.stdout, stdio.descriptors.stderr):
        assert os.path.samestat(os.fstat(fd), os.stat(os.devnull))
    stdio.child_started()
    assert await read_all(output) == NOTICE
    assert await read_all(errors) == b""
    with pytest.raises(StreamClosedError):
        await write_for_ever(to_child)


async def test_without_streams_it_is_the_null_device(ends: Ends) -> None:
    stdio = ends.stdio(StreamIds())
    assert os.read(stdio.descriptors.stdin, 1) == b""
    stdio.child_started()
    await stdio.drain()
    stdio.discard()


async def test_pipes_belong_to_the_process_user(ends: Ends) -> None:
    number, _ = ends.stream()
    stdio = Stdio(
        ends.background,
        ends.guest.open,
        StreamIds(stdout=number),
        Access.GRANTED,
        Console.PIPES,
        (1000, 1001),
    )
    about = os.fstat(stdio.descriptors.stdout)
    assert (about.st_uid, about.st_gid) == (1000, 1001)
    stdio.discard()


async def test_a_terminal_has_no_stderr(ends: Ends) -> None:
    number, _ = ends.stream()
    with pytest.raises(InvalidArgumentError, match="stderr"):
        Stdio(
            ends.background,
            ends.guest.open,
            StreamIds(stderr=number),
            Access.GRANTED,
            Console.TERMINAL,
        )


async def test_a_stream_twice_is_refused_and_nothing_is_left_open(ends: Ends) -> None:
    number, stream = ends.stream()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ApiError):
        ends.stdio(StreamIds(stdout=number, stderr=number))
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(StreamClosedError):
        await stream.read()


async def test_discard_closes_everything(ends: Ends) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ids = [ends.stream()[0] for _ in range(3)]
    stdio = ends.stdio(StreamIds(*ids))
    stdio.child_started()
    stdio.discard()
    stdio.discard()
    await ends.background.close()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_terminal_both_ways(ends: Ends) -> None:
    (stdin, to_child), (stdout, output) = ends.stream(), ends.stream()
    stdio = Stdio(
        ends.background,
        ends.guest.open,
        StreamIds(stdin, stdout),
        Access.GRANTED,
        Console.TERMINAL,
    )
    master, slave = os.openpty()
    stdio.attach_terminal(master, (120, 40))
    stdio.child_started()
    assert os.get_terminal_size(slave) == (120, 40)
    stdio.resize(10, 20)
    assert os.get_terminal_size(slave) == (10, 20)
    await to_child.write(b"typed\n")
    assert await asyncio.to_thread(os.read, slave, 100) == b"typed\n"
    os.write(slave, b"shown")
    os.close(slave)
    assert await read_all(output) == b"typed\r\nshown"
    await stdio.drain()
