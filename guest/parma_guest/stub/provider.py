"""Reports of the stub PSP, a process on the host, over the virtio-serial port `parma.psp`. Never proof of anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from parma_api.channel.stream import ByteStream, FdStream, StreamClosedError
from parma_api.snp import psp_wire
from parma_api.status import UnavailableError
from parma_guest.agent.port import find_port
from parma_guest.attest.provider import whole_report
from parma_guest.linux.errno import kernel_call

SECONDS = 20.0
"""For one answer; the stub signs in milliseconds, an emulated guest may be slow to ask."""


def open_psp() -> ByteStream:
    """The port. Raises UnavailableError, KernelError."""
    path = find_port(psp_wire.PORT_NAME)
    if path is None:
        raise UnavailableError(
            f"no virtio-serial port {psp_wire.PORT_NAME}: the shim started no stub PSP"
        )
    with kernel_call("open", path):
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    return FdStream(fd, fd)


class StubProvider:
    """See ReportProvider."""

    name = "stub"

    def __init__(self, connect: Callable[[], ByteStream] = open_psp) -> None:
        self._connect = connect
        self._stream: ByteStream | None = None
        self._lock = asyncio.Lock()

    async def report(self, report_data: bytes) -> bytes:
        """See ReportProvider. Raises UnavailableError, DataLossError."""
        return whole_report(await self._body(psp_wire.ReportRequest(report_data)), self.name)

    async def certificates(self) -> bytes:
        """The certificate table that belongs to the reports. Raises UnavailableError."""
        return await self._body(psp_wire.CertificatesRequest())

    async def _body(self, request: psp_wire.Request) -> bytes:
        answer = await self.ask(request)
        if answer.status or answer.exitinfo2:
            raise UnavailableError(
                f"the stub PSP answers status {answer.status:#x}, exitinfo2 {answer.exitinfo2:#x}"
            )
        return answer.body

    async def ask(self, request: psp_wire.Request) -> psp_wire.Answer:
        """The answer as it is, also a refusal. Raises UnavailableError, InvalidArgumentError."""
        async with self._lock:
            try:
                async with asyncio.timeout(SECONDS):
                    return await self._exchange(psp_wire.encode_request(request))
            except BaseException as error:
                self._drop()  # half an answer may be on its way
                if isinstance(error, TimeoutError):
                    raise UnavailableError("the stub PSP does not answer") from None
                if isinstance(error, StreamClosedError):
                    raise UnavailableError("the stub PSP is gone") from None
                raise

    async def _exchange(self, request: bytes) -> psp_wire.Answer:
        if self._stream is None:
            self._stream = self._connect()
        await self._stream.write(request)
        header = await self._read(self._stream, psp_wire.ANSWER_HEADER_SIZE)
        status, length, exitinfo2 = psp_wire.decode_answer_header(header)
        return psp_wire.Answer(status, exitinfo2, await self._read(self._stream, length))

    async def _read(self, stream: ByteStream, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = await stream.read(size - len(data))
            if not part:
                raise StreamClosedError("the stub PSP is gone")
            data += part
        return bytes(data)

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.abort()
            self._stream = None
