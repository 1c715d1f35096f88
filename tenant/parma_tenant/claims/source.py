"""Where a workload's reports come from: one interface; the ways to it are in `device` and, over sockets, here.

None of them is trusted, nor need be: what a source gives is judged by the relying party.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from parma_api.snp import psp_wire
from parma_api.snp.report import SIZE
from parma_api.status import DataLossError, UnavailableError

SECONDS: Final = 30.0
"""For one answer; the host may delay it as long as it likes."""
_MAX_ANSWER: Final = 16 * 1024


class ReportSource(Protocol):
    """One way to the security processor."""

    async def report(self, report_data: bytes) -> bytes:
        """A report over 64 bytes, 1184 bytes long. Raises ApiError."""
        ...

    async def certificates(self) -> bytes:
        """What belongs to the reports, in a form that `verify.intake` reads; empty if there is none.

        Raises ApiError.
        """
        ...


def whole_report(data: bytes, report_data: bytes) -> bytes:
    """`data`, if it is a report over `report_data`. Raises DataLossError."""
    if len(data) != SIZE:
        raise DataLossError(f"the source gave {len(data)} bytes, a report has {SIZE}")
    if data[0x50:0x90] != report_data:
        raise DataLossError("the source gave a report over other data")
    return data


class SocketSource:
    """The agent's Unix socket, which speaks `parma_api.snp.psp_wire`; one connection for each request."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __repr__(self) -> str:
        return self._path

    async def report(self, report_data: bytes) -> bytes:
        """See ReportSource."""
        return whole_report(await self._ask(psp_wire.ReportRequest(report_data)), report_data)

    async def certificates(self) -> bytes:
        """See ReportSource."""
        return await self._ask(psp_wire.CertificatesRequest())

    async def _ask(self, request: psp_wire.Request) -> bytes:
        try:
            async with asyncio.timeout(SECONDS):
                return await self._exchange(psp_wire.encode_request(request))
        except TimeoutError:
            raise UnavailableError(f"{self._path} does not answer") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            raise UnavailableError(f"{self._path} gives no report: {_why(error)}") from error

    async def _exchange(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(request)
            await writer.drain()
            header = await reader.readexactly(psp_wire.ANSWER_HEADER_SIZE)
            status, length, *_ = psp_wire.decode_answer_header(header)
            body = await reader.readexactly(length)
        finally:
            writer.close()
        if status != psp_wire.Status.OK:
            raise UnavailableError(f"{self._path} answers status {status:#x}")
        return body


class AgentSource:
    """The agent's socket for privileged containers (HTTP; docs/attestation-guide.md): reports, no certificates."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __repr__(self) -> str:
        return self._path

    async def report(self, report_data: bytes) -> bytes:
        """See ReportSource."""
        head = f"POST /report HTTP/1.1\r\nHost: agent\r\nContent-Length: {len(report_data)}\r\n\r\n"
        try:
            async with asyncio.timeout(SECONDS):
                answer = await self._exchange(head.encode() + report_data)
        except TimeoutError:
            raise UnavailableError(f"{self._path} does not answer") from None
        except OSError as error:
            raise UnavailableError(f"{self._path} gives no report: {_why(error)}") from error
        head_line, _, body = answer.partition(b"\r\n\r\n")
        if head_line.split(b" ")[1:2] != [b"200"]:
            raise UnavailableError(f"{self._path} gives no report")
        return whole_report(body, report_data)

    async def certificates(self) -> bytes:
        """None: they are in the security-context directory."""
        return b""

    async def _exchange(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(request)
            await writer.drain()
            answer = b""
            while len(answer) <= _MAX_ANSWER and (part := await reader.read(_MAX_ANSWER)):
                answer += part
            return answer
        finally:
            writer.close()


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "connection lost"
    return "it ends before the answer does"


class FixedCertificates:
    """A source whose certificates come from elsewhere: the security-context directory, a key service."""

    def __init__(self, source: ReportSource, certificates: bytes) -> None:
        self._source = source
        self._certificates = certificates

    async def report(self, report_data: bytes) -> bytes:
        """See ReportSource."""
        return await self._source.report(report_data)

    async def certificates(self) -> bytes:
        """Those that were given; the source's own when they were none."""
        return self._certificates or await self._source.certificates()
