"""The channel's lower end in the guest: a virtio-serial port found by its name, else a vsock listener.

Imports little: the agent reads it before its first answer.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from typing import Final

from parma_api.channel.stream import FdStream, SocketStream
from parma_api.status import UnavailableError

PORT_NAME: Final = "parma.channel"
VSOCK_PORT: Final = 20545
HOST_CID: Final = 2
"""VMADDR_CID_HOST: containers, and anybody else with a socket of this family, have other numbers."""
_SYSFS: Final = "/sys/class/virtio-ports"
_POLL_SECONDS: Final = 0.01


def find_port(name: str, sysfs: str = _SYSFS, devices: str = "/dev") -> str | None:
    """The node of the port of that name; None if there is none (yet)."""
    try:
        entries = os.listdir(sysfs)  # noqa: PTH208 (pathlib costs an import)
    except FileNotFoundError:
        return None
    for entry in sorted(entries):
        try:
            with open(f"{sysfs}/{entry}/name", encoding="ascii") as file:  # noqa: PTH123
                found = file.read().strip()
        except OSError:
            continue
        if found == name:
            return f"{devices}/{entry}"
    return None


async def open_port(path: str) -> FdStream:
    """The port, once the host's end is connected: until then it reads as ended. Raises UnavailableError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}") from error
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while any(event & select.POLLHUP for _, event in poll.poll(0)):  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)
    return FdStream(fd, fd)


def listen_vsock(port: int = VSOCK_PORT) -> socket.socket:
    """A listening vsock socket. Raises UnavailableError where there is no vsock."""
    try:
        listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind((socket.VMADDR_CID_ANY, port))
        listener.listen(4)
    except OSError as error:
        raise UnavailableError(f"vsock: {error.strerror}") from error
    return listener


async def accept_host(listener: socket.socket) -> SocketStream:
    """The next connection of the host's; others are closed without a word."""
    loop = asyncio.get_running_loop()
    while True:
        peer, address = await loop.sock_accept(listener)
        if address[0] == HOST_CID:
            return SocketStream(peer)
        peer.close()
