"""The channel over vsock, where the host has it (include/uapi/linux/vhost.h, vm_sockets.h).

The shim dials and never listens: a container in any guest can reach a listener of the host. A free guest CID is found
by asking for it; the kernel refuses one that is taken.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from parma_api.channel.stream import CHUNK, Data, SocketStream, StreamClosedError
from parma_shim.vmm.config import Vsock
from parma_shim.vmm.errors import VmmError, VmmSetupError

AGENT_PORT = 0x5041
VHOST_VSOCK_SET_GUEST_CID = 0x4008AF60
FIRST_CID, LAST_CID = 3, 0xFFFFFFFE
"""0 to 2 are the hypervisor, loopback and the host; the last is VMADDR_CID_ANY."""
ATTEMPTS = 32
RETRY_INTERVAL = 0.02
_NOT_YET = {errno.ECONNREFUSED, errno.ECONNRESET, errno.ENODEV, errno.ETIMEDOUT, errno.EHOSTUNREACH}


def vsock_available(device: Path = Path("/dev/vhost-vsock")) -> bool:
    """Whether this process could give a VM a vsock device."""
    return os.access(device, os.R_OK | os.W_OK)


def allocate(device: Path = Path("/dev/vhost-vsock")) -> Vsock:
    """A vsock device with a guest CID of its own; the descriptor is the caller's. Raises VmmSetupError, VmmError."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise VmmSetupError(
            f"{device} cannot be opened: {error.strerror}; load vhost_vsock"
        ) from error
    try:
        for _ in range(ATTEMPTS):
            cid = FIRST_CID + secrets.randbelow(LAST_CID - FIRST_CID)
            if _claim(fd, cid):
                return Vsock(fd, cid)
    except OSError as error:
        os.close(fd)
        raise VmmError(f"{device} refuses a guest CID: {error.strerror}") from error
    os.close(fd)
    raise VmmError(f"{device} has no free guest CID")


def _claim(fd: int, cid: int) -> bool:
    try:
        fcntl.ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, struct.pack("=Q", cid))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True


async def dial(cid: int, port: int = AGENT_PORT) -> SocketStream:
    """Connects once. Raises OSError."""
    sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (cid, port))
    except BaseException:
        sock.close()
        raise
    return SocketStream(sock)


class DialledStream:
    """A byte stream that is dialled until the agent listens; reads and writes wait for that.

    Whoever started the machine decides how long that may take, and aborts.
    """

    def __init__(self, dial_once: Callable[[], Awaitable[SocketStream]]) -> None:
        self._connecting = asyncio.create_task(_persist(dial_once), name="vsock-dial")

    async def read(self, n: int = CHUNK) -> bytes:
        """See ByteStream."""
        try:
            stream = await self._stream()
        except StreamClosedError:
            return b""
        return await stream.read(n)

    async def write(self, data: Data) -> None:
        """See ByteStream."""
        await (await self._stream()).write(data)

    async def finish(self) -> None:
        """See ByteStream."""
        await (await self._stream()).finish()

    def abort(self) -> None:
        """See ByteStream."""
        if not self._connecting.done():
            self._connecting.cancel()
        elif not self._connecting.cancelled() and self._connecting.exception() is None:
            self._connecting.result().abort()

    async def _stream(self) -> SocketStream:
        await asyncio.wait((self._connecting,))
        if self._connecting.cancelled():
            raise StreamClosedError("stream closed before the agent listened")
        return self._connecting.result()


async def _persist(dial_once: Callable[[], Awaitable[SocketStream]]) -> SocketStream:
    while True:
        try:
            return await dial_once()
        except OSError as error:
            if error.errno not in _NOT_YET:
                raise StreamClosedError(f"the agent cannot be dialled: {error.strerror}") from error
            await asyncio.sleep(RETRY_INTERVAL)
