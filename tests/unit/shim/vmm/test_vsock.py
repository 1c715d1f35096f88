"""Dialling until somebody listens; with Unix sockets in the place of vsock, which needs a VM."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from parma_api.channel.stream import SocketStream, StreamClosedError, stream_pair
from parma_shim.vmm.errors import VmmError, VmmSetupError
from parma_shim.vmm.vsock import DialledStream, allocate, vsock_available


async def test_it_dials_until_the_agent_listens() -> None:
    near, far = stream_pair()
    attempts = iter(
        [ConnectionRefusedError(111, "refused"), ConnectionResetError(104, "reset"), near]
    )

    async def dial() -> SocketStream:
        result = next(attempts)
        if isinstance(result, OSError):
            raise result
        return result

    stream = DialledStream(dial)
    await stream.write(b"ping")
    assert await far.read() == b"ping"
    await far.write(b"pong")
    assert await stream.read() == b"pong"
    await stream.finish()
    assert await far.read() == b""
    stream.abort()
    far.abort()
    assert near.socket.fileno() == -1


async def test_abort_while_dialling() -> None:
    async def dial() -> SocketStream:
        raise ConnectionRefusedError(111, "refused")

    stream = DialledStream(dial)
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    stream.abort()
    assert await reading == b""
    with pytest.raises(StreamClosedError):
        await stream.write(b"x")
    stream.abort()


async def test_what_will_never_work_is_told() -> None:
    async def dial() -> SocketStream:
        raise OSError(97, "Address family not supported")

    with pytest.raises(StreamClosedError, match="not supported"):
        await DialledStream(dial).write(b"x")


def test_a_device_that_is_none(tmp_path: Path) -> None:
    assert not vsock_available(tmp_path / "vhost-vsock")
    with pytest.raises(VmmSetupError, match="load vhost_vsock"):
        allocate(tmp_path / "vhost-vsock")
    (tmp_path / "vhost-vsock").touch()
    with pytest.raises(VmmError, match="refuses"):
        allocate(tmp_path / "vhost-vsock")
