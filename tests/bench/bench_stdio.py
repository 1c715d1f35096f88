"""256 MiB of standard output through the channel, between two processes, against the bare byte stream beneath it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from parma_api.channel.mux import Mux
from parma_api.channel.session import Side
from parma_api.channel.stream import ByteStream, SocketStream
from tests.bench.row import Limit, Rows, row

TOTAL: Final = 256 << 20
ROUNDS: Final = 21
_PIECE: Final = bytes(65536)


async def _pump(stream: ByteStream) -> None:
    for _ in range(TOTAL // len(_PIECE)):
        await stream.write(_PIECE)
    await stream.finish()


async def _drain(stream: ByteStream) -> float:
    """Seconds; the first byte starts the clock: the other process takes a while to start."""
    got = len(await stream.read())
    begin = time.perf_counter()
    while data := await stream.read():
        got += len(data)
    assert got == TOTAL, f"{got} of {TOTAL} bytes came"
    return time.perf_counter() - begin


async def _guest_bare(sock: socket.socket) -> None:
    await _pump(SocketStream(sock))


async def _guest_mux(sock: socket.socket) -> None:
    mux = Mux(SocketStream(sock), side=Side.GUEST)
    running = asyncio.create_task(mux.run())
    await _pump(mux.open(1))
    await running


async def _host_bare(sock: socket.socket) -> float:
    return await _drain(SocketStream(sock))


async def _host_mux(sock: socket.socket) -> float:
    mux = Mux(SocketStream(sock), side=Side.HOST)
    running = asyncio.create_task(mux.run())
    number = mux.next_id()
    assert number == 1, "the guest opens the first stream"
    seconds = await _drain(mux.open(number))
    mux.abort()
    with contextlib.suppress(Exception):
        await running
    return seconds


def _in_child(guest: Callable[[socket.socket], Coroutine[Any, Any, None]], fd: int) -> None:
    with contextlib.suppress(Exception):  # the host ends the channel
        asyncio.run(guest(socket.socket(fileno=fd)))


def _seconds(
    guest: Callable[[socket.socket], Coroutine[Any, Any, None]],
    host: Callable[[socket.socket], Coroutine[Any, Any, float]],
) -> float:
    ours, theirs = socket.socketpair()
    child = multiprocessing.get_context("fork").Process(
        target=_in_child, args=(guest, theirs.fileno())
    )
    child.start()
    theirs.close()
    try:
        ours.setblocking(False)
        return asyncio.run(host(ours))
    finally:
        child.kill()
        child.join()


def run() -> Rows:
    """Rows for `make bench`."""
    bare, muxed = [], []
    for _ in range(ROUNDS):
        bare.append(TOTAL / 1e6 / _seconds(_guest_bare, _host_bare))
        muxed.append(TOTAL / 1e6 / _seconds(_guest_mux, _host_mux))
    return [row("stdio.256MiB", "MB/s", muxed, "bare byte stream", bare, Limit(least=0.5))]
