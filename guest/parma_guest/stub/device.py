"""The stub's /dev/sev-guest: a CUSE device in the agent's process. What it gives is never proof of anything."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from parma_api.snp import psp_wire
from parma_api.status import ApiError
from parma_guest.linux.errno import kernel_call
from parma_guest.stub import fuse_wire, ioctls
from parma_guest.stub.fuse_wire import Op, RefusedError, Request
from parma_guest.stub.session import Session

log = logging.getLogger(__name__)

NAME: Final = "sev-guest"
CUSE: Final = "/dev/cuse"
BUSY_SECONDS: Final = 2.0
"""Between two attempts while the host is busy (SNP_REQ_RETRY_DELAY)."""
BUSY_ATTEMPTS: Final = 30
"""Within 60 s (SNP_REQ_MAX_RETRY_DURATION)."""

Processor = Callable[[psp_wire.Request], Awaitable[psp_wire.Answer]]
"""Answers a request. Raises ApiError."""


class SevGuestDevice:
    """The driver's state: whether its key is still good. Requests go to the processor in their order."""

    def __init__(self, processor: Processor, busy_seconds: float = BUSY_SECONDS) -> None:
        self._processor, self._busy_seconds = processor, busy_seconds
        self._lock = asyncio.Lock()
        self._disabled = False

    async def handle(self, request: Request) -> bytes:
        """See `session.Handler`."""
        match request.opcode:
            case Op.OPEN:
                return fuse_wire.opened(0)
            case Op.RELEASE | Op.FLUSH:
                return b""
            case Op.IOCTL:
                return await self._ioctl(fuse_wire.decode_ioctl(request))
            case _:
                raise RefusedError(errno.ENOSYS)

    async def _ioctl(self, ioctl: fuse_wire.Ioctl) -> bytes:
        step = ioctls.step(ioctl, disabled=self._disabled)
        if isinstance(step, ioctls.Ask):
            async with self._lock:
                step = await self._ask(step)
                self._note(failed=step.disable)
        if isinstance(step, ioctls.Retry):
            return fuse_wire.ioctl_retry(step.reads, step.writes)
        return fuse_wire.ioctl_done(step.result, step.data)

    async def _ask(self, call: ioctls.Ask) -> ioctls.Done:
        answers: list[psp_wire.Answer] = []
        for request in call.requests:
            if self._disabled:
                return call.gone
            answer = await self._patiently(request)
            if answer.exitinfo2:
                return call.failed(answer.exitinfo2)
            answers.append(answer)
        return call.finish(tuple(answers))

    async def ask(self, request: psp_wire.Request) -> psp_wire.Answer:
        """For the driver's other users, configfs-tsm: by the same key. Raises RefusedError."""
        async with self._lock:
            if self._disabled:
                raise RefusedError(errno.ENOTTY)
            answer = await self._patiently(request)
            self._note(failed=bool(answer.exitinfo2))
            return answer

    def _note(self, *, failed: bool) -> None:
        if failed:
            log.warning("stub /dev/sev-guest: the firmware failed, its key is used no more")
            self._disabled = True

    async def _patiently(self, request: psp_wire.Request) -> psp_wire.Answer:
        answer = await self._processor(request)
        for _ in range(BUSY_ATTEMPTS):
            if answer.exitinfo2 != psp_wire.HOST_BUSY:
                break
            await asyncio.sleep(self._busy_seconds)
            answer = await self._processor(request)
        return answer


def open_cuse(path: str = CUSE, name: str = NAME) -> int:
    """A descriptor whose device has appeared under /dev. Blocks for a moment. Raises KernelError, FuseError."""
    with kernel_call("open", path, "the stub image's module cuse is not loaded"):
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with kernel_call("CUSE_INIT", name):
            first = fuse_wire.decode(os.read(fd, fuse_wire.READ_SIZE))
            os.write(fd, fuse_wire.cuse_init(first, name))
    except (ApiError, struct.error):
        os.close(fd)
        raise
    return fd


def serve(fd: int, driver: SevGuestDevice) -> Session:
    """In a running loop, until the session is closed."""
    return Session(fd, driver.handle)
