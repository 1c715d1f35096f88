"""The monitor against a peer that plays a broken or hostile QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from parma_shim.qmp import codec
from parma_shim.qmp.client import Monitor, connect
from parma_shim.qmp.errors import (
    QmpClosedError,
    QmpCommandError,
    QmpProtocolError,
    QmpTimeoutError,
)

GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
        "capabilities": [],
    }
}

Answer = Callable[[dict[str, object], Callable[[object], None]], object]


class Peer:
    """Greets, agrees to capabilities, then answers as a test tells it."""

    def __init__(self, answer: Answer, greeting: object = GREETING) -> None:
        self.answer = answer
        self.greeting = greeting
        self.seen: list[str] = []

    async def serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=sock)

        def send(message: object) -> None:
            data = message if isinstance(message, bytes) else json.dumps(message).encode()
            writer.write(data + b"\n")

        send(self.greeting)
        try:
            async for request in requests(reader):
                self.seen.append(str(request["execute"]))
                if request["execute"] == "qmp_capabilities":
                    send({"return": {}})  # the library sends it without an id
                elif (result := self.answer(request, send)) is not None:
                    send({**result, "id": request["id"]} if isinstance(result, dict) else result)
        finally:
            writer.close()


async def requests(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, object]]:
    """JSON values one after the other: the library puts nothing between them, as QEMU's parser allows."""
    text = ""
    while data := await reader.read(4096):
        text += data.decode()
        with contextlib.suppress(json.JSONDecodeError):
            while text := text.lstrip():
                value, end = json.JSONDecoder().raw_decode(text)
                text = text[end:]
                yield value


@contextlib.asynccontextmanager
async def connected(answer: Answer) -> AsyncIterator[tuple[Monitor, Peer]]:
    near, far = socket.socketpair()
    peer = Peer(answer)
    serving = asyncio.create_task(peer.serve(far))
    monitor = await connect(near, 5)
    try:
        yield monitor, peer
    finally:
        await monitor.close()
        serving.cancel()
        await asyncio.wait((serving,))


async def test_an_answer() -> None:
    async with connected(lambda request, send: {"return": {"status": "running"}}) as (
        monitor,
        _peer,
    ):
        assert codec.parse_status(await monitor.run(codec.query_status())) == "running"


async def test_a_refusal_carries_the_reason_on_one_line() -> None:
    error = {"error": {"class": "GenericError", "desc": "no\nsuch thing" + "x" * 999}}
    async with connected(lambda request, send: error) as (monitor, _peer):
        with pytest.raises(QmpCommandError, match=r"refused quit: no\\nsuch") as caught:
            await monitor.run(codec.quit_())
        assert len(caught.value.message) < 400


async def test_silence() -> None:
    async with connected(lambda request, send: None) as (monitor, _peer):
        with pytest.raises(QmpTimeoutError, match="query-status within"):
            await monitor.run(codec.query_status(), 0.05)


@pytest.mark.parametrize(
    "reply",
    [b"{", b"[]", b"x" * (codec.MAX_MESSAGE + 10), b"\xff\xfe"],
    ids=["half", "list", "huge", "no text"],
)
async def test_garbage_closes_the_monitor(reply: bytes) -> None:
    async with connected(lambda request, send: reply) as (monitor, _peer):
        with pytest.raises((QmpClosedError, QmpProtocolError)):
            await monitor.run(codec.query_status(), 5)
        with pytest.raises(QmpClosedError):
            await monitor.run(codec.query_status(), 5)


async def test_no_greeting() -> None:
    near, far = socket.socketpair()
    with far, pytest.raises(QmpTimeoutError, match="greeting"):
        await connect(near, 0.05)


async def test_a_device_is_gone_when_the_event_says_so() -> None:
    def answer(request: dict[str, object], send: Callable[[object], None]) -> object:
        stamp = {"seconds": 1, "microseconds": 1}
        for device in ("other", "lun1"):
            send(
                {
                    "event": "DEVICE_DELETED",
                    "data": {"device": device, "path": "/"},
                    "timestamp": stamp,
                }
            )
        send(
            {
                "event": "SHUTDOWN",
                "data": {"guest": True, "reason": "guest-reset"},
                "timestamp": stamp,
            }
        )
        return {"return": {}}

    async with connected(answer) as (monitor, _peer):
        await monitor.remove_device("lun1", 5)
        assert monitor.shutdown_reason == "guest-reset"


async def test_a_removal_that_never_comes() -> None:
    async with connected(lambda request, send: {"return": {}}) as (monitor, _peer):
        with pytest.raises(QmpTimeoutError):
            await monitor.remove_device("lun1", 0.05)


async def test_descriptors_are_passed_one_at_a_time() -> None:
    order: list[object] = []

    def answer(request: dict[str, object], send: Callable[[object], None]) -> object:
        arguments = request["arguments"]
        assert isinstance(arguments, dict)
        order.append(arguments["fdset-id"])
        return {"return": {"fdset-id": arguments["fdset-id"], "fd": 3}}

    async with connected(answer) as (monitor, _peer):
        fd = os.open("/dev/null", os.O_RDONLY)
        try:
            passing: list[Awaitable[None]] = [monitor.pass_descriptor(fd, n) for n in range(5)]
            await asyncio.gather(*passing)
        finally:
            os.close(fd)
    assert order == [0, 1, 2, 3, 4]


async def test_one_command_at_a_time() -> None:
    """A peer that reads nothing until it has answered would otherwise find hundreds of messages in its socket."""
    waiting: list[int] = []

    def answer(request: dict[str, object], send: Callable[[object], None]) -> object:
        waiting.append(1)
        asyncio.get_running_loop().call_soon(
            lambda: (waiting.pop(), send({"return": {}, "id": request["id"]}))
        )
        assert len(waiting) == 1
        return None

    async with connected(answer) as (monitor, peer):
        await asyncio.gather(*(monitor.run(codec.query_status(), 5) for _ in range(300)))
        assert len(peer.seen) == 301
