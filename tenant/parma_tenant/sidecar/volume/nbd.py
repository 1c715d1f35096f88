"""A blob as a block device: the kernel's network block device, whose server is this process, over a socket pair."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from errno import EBUSY, EINVAL, EIO, EPERM
from pathlib import Path
from typing import Final

from parma_api.block.integrity import BLOCK, SECTOR
from parma_api.status import (
    ApiError,
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)
from parma_tenant.sidecar.volume import nbd_wire
from parma_tenant.sidecar.volume.blob import Blob
from parma_tenant.sidecar.volume.kernel import KernelError, ioctl, kernel_call
from parma_tenant.sidecar.volume.mapper import make_node

_log = logging.getLogger("parma.volume")
# include/uapi/linux/nbd.h
_SET_SOCK, _SET_BLKSIZE, _DO_IT, _CLEAR_SOCK = 0xAB00, 0xAB01, 0xAB03, 0xAB04
_SET_SIZE_BLOCKS, _DISCONNECT, _SET_TIMEOUT, _SET_FLAGS = 0xAB07, 0xAB08, 0xAB09, 0xAB0A
_HAS_FLAGS, _READ_ONLY, _SEND_FLUSH, _SEVERAL = 1, 2, 4, 1 << 8
_CONNECTIONS: Final = 4
"""So many requests are under way at a time."""
_SECONDS: Final = 300
"""After which the kernel gives a request up; the blob's own attempts take less."""
_READY_SECONDS: Final = 20.0
_SYSFS: Final = Path("/sys/block")


class NetworkDevice:
    """A block device of `size` bytes whose content is the blob's first bytes. Close it when nothing uses it."""

    def __init__(self, blob: Blob, size: int, *, writable: bool) -> None:
        """Raises KernelError, FailedPreconditionError (no free device), UnavailableError."""
        self._size = size
        pairs = [socket.socketpair() for _ in range(_CONNECTIONS)]
        self._links = [_Link(ours, blob, size, writable=writable) for ours, _ in pairs]
        try:
            self.name, self.number, self._fd = _attach(
                [theirs for _, theirs in pairs], size, writable=writable
            )
        except BaseException:
            for link in self._links:
                link.close()
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        works = (*(link.serve for link in self._links), self._wait)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def _wait_ready(self) -> None:
        """The kernel gives the device its size when it has begun to serve it."""
        sectors = _SYSFS / self.name / "size"
        deadline = time.monotonic() + _READY_SECONDS
        while int(sectors.read_text()) * SECTOR != self._size:
            if time.monotonic() > deadline:
                raise UnavailableError(f"{self.name} does not become ready")
            time.sleep(0.01)

    def close(self) -> None:
        """Takes the device down."""
        try:
            ioctl(self.name, self._fd, _DISCONNECT, 0, "NBD_DISCONNECT")
        except KernelError as error:
            _log.warning("%s", error.message)
        for thread in self._threads:
            thread.join(10)
        for link in self._links:
            link.close()
        os.close(self._fd)

    def _wait(self) -> None:
        """The kernel holds the caller of this ioctl while the device is up."""
        try:
            ioctl(self.name, self._fd, _DO_IT, 0, "NBD_DO_IT")
        except KernelError as error:
            _log.warning("%s", error.message)


class _Link:
    """One of the device's connections: requests one after the other. The others go on meanwhile."""

    def __init__(self, connection: socket.socket, blob: Blob, size: int, *, writable: bool) -> None:
        self._socket, self._blob = connection, blob
        self._size, self._writable = size, writable

    def close(self) -> None:
        """The kernel has gone, or never came."""
        self._socket.close()

    def serve(self) -> None:
        """Until the kernel disconnects."""
        try:
            while (data := self._receive(nbd_wire.REQUEST_SIZE)) is not None:
                request = nbd_wire.parse(data)
                if request.command is nbd_wire.Command.DISCONNECT:
                    break
                self._answer(request)
        except (OSError, ApiError) as error:
            _log.error("a connection of the block device ends: %s", error)
        self._socket.close()

    def _receive(self, length: int) -> bytes | None:
        """Exactly `length` bytes; None at the end."""
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = self._socket.recv_into(view)
            if not count:
                return None
            view = view[count:]
        return bytes(data)

    def _answer(self, request: nbd_wire.Request) -> None:
        body: bytes | None = b""
        if request.command is nbd_wire.Command.WRITE:
            body = self._receive(request.length)
        if body is None:  # the kernel has gone in the middle of a write
            return
        try:
            error, data = 0, self._carry_out(request, body)
        except _RefusedError as refused:
            error, data = refused.number, b""
        except Exception as failure:  # noqa: BLE001 - whatever a store sends is an I/O error and ends nothing
            _log.error("%s at byte %d: %s", request.command, request.offset, failure)
            error, data = EIO, b""
        self._socket.sendall(nbd_wire.reply(request.handle, error) + data)

    def _carry_out(self, request: nbd_wire.Request, body: bytes) -> bytes:
        if request.offset + request.length > self._size:
            raise _RefusedError(EINVAL)
        match request.command:
            case nbd_wire.Command.READ:
                return self._blob.read(request.offset, request.length)
            case nbd_wire.Command.WRITE if self._writable:
                self._blob.write(request.offset, body)
            case nbd_wire.Command.FLUSH:
                self._blob.flush()
            case _:
                raise _RefusedError(EPERM)
        return b""


class _RefusedError(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _attach(peers: Sequence[socket.socket], size: int, *, writable: bool) -> tuple[str, str, int]:
    """Name, number and descriptor of a free device that now belongs to `peers`."""
    if size % BLOCK:
        raise InvalidArgumentError(f"a blob has a multiple of {BLOCK} bytes")
    flags = _HAS_FLAGS | _SEND_FLUSH | _SEVERAL | (0 if writable else _READ_ONLY)
    for folder in sorted(_SYSFS.glob("nbd*")):
        if (folder / "pid").exists():
            continue
        number = (folder / "dev").read_text().strip()
        major, minor = map(int, number.split(":"))
        node = make_node(folder.name, major, minor)
        with kernel_call("open", node):
            fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        try:
            for peer in peers:
                ioctl(node, fd, _SET_SOCK, peer.fileno(), "NBD_SET_SOCK")
            ioctl(node, fd, _SET_BLKSIZE, BLOCK, "NBD_SET_BLKSIZE")
            ioctl(node, fd, _SET_SIZE_BLOCKS, size // BLOCK, "NBD_SET_SIZE_BLOCKS")
            ioctl(node, fd, _SET_TIMEOUT, _SECONDS, "NBD_SET_TIMEOUT")
            ioctl(node, fd, _SET_FLAGS, flags, "NBD_SET_FLAGS")
        except BaseException as error:
            os.close(fd)
            if isinstance(error, KernelError) and error.number == EBUSY:
                continue  # another sidecar took it meanwhile
            raise
        return folder.name, number, fd
    raise FailedPreconditionError(
        "no free network block device: is the kernel's module nbd loaded?"
    )
