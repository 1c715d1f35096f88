"""The agent's socket for privileged containers: reports and transcript, HTTP/1.1 over a Unix socket, one request each.

    GET /transcript            the transcript, as `parma attest verify --transcript` reads it
    GET /transcript/head       its head, 64 hexadecimal digits
    GET /evidence/NONCE        {"report": hex, "transcript": {...}}: a report whose data is NONCE (32 bytes in hex)
                               and then the head of that very transcript
    POST /report               body: 64 bytes of report data; answer: the report, 1184 bytes

Whoever may use it may also use /dev/sev-guest, and so have any report data signed. A head in report data is thus the
agent's word or that of a privileged container of this policy, and a relying party reads in the policy whom it trusts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from parma_api.status import ApiError
from parma_guest.agent.transcript import Transcript, encode_file
from parma_guest.attest.provider import REPORT_DATA_SIZE, ReportProvider

SOCKET: Final = "agent.sock"
SECONDS: Final = 60.0
"""For one request and its answer; an emulated guest is slow, and so may a security processor be."""
MAX_HEAD: Final = 4096
MAX_OPEN: Final = 16
"""Connections at a time; more wait in the kernel's queue."""
_NONCE: Final = re.compile(r"/evidence/([0-9a-fA-F]{64})")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
    503: "Service Unavailable",
}
_TEXT, _JSON, _BYTES = "text/plain", "application/json", "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    code: int
    body: bytes
    kind: str = _TEXT

    def encode(self) -> bytes:
        """Its bytes; the connection ends with it."""
        head = (
            f"HTTP/1.1 {self.code} {_REASONS[self.code]}\r\nContent-Type: {self.kind}\r\n"
            f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + self.body


class ReportSocket:
    """Answers from the transcript as it is, and by the image's report provider."""

    def __init__(
        self, transcript: Transcript, provider: Callable[[], Awaitable[ReportProvider]]
    ) -> None:
        self._transcript, self._provider = transcript, provider
        self._slots = asyncio.Semaphore(MAX_OPEN)
        self._server: asyncio.Server | None = None

    async def listen(self, directory: str) -> None:
        """Make the directory and listen in it: for root, as /dev/sev-guest is. Raises OSError."""
        os.makedirs(directory, mode=0o755, exist_ok=True)  # noqa: PTH103 (pathlib costs an import)
        path = f"{directory}/{SOCKET}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        self._server = await asyncio.start_unix_server(
            self._serve, path, limit=MAX_HEAD, backlog=MAX_OPEN
        )
        os.chmod(path, 0o600)  # noqa: PTH101

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._slots, asyncio.timeout(SECONDS):
                reply = await self._reply(reader)
                writer.write(reply.encode())
                await writer.drain()
        except (TimeoutError, OSError, EOFError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader) -> Reply:
        """Raises EOFError for a request that ends too early, OSError."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Reply(413, b"the head of a request has at most 4096 bytes\n")
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Reply(400, b"this is no request of HTTP/1.1\n")
        try:
            if words[0] == "GET":
                return await self._get(words[1])
            if words[:2] == ["POST", "/report"]:
                return await self._report(head, reader)
        except ApiError as error:
            return Reply(503, f"{error.message}\n".encode())
        return Reply(404, b"there are /transcript, /transcript/head, /evidence/NONCE, /report\n")

    async def _get(self, path: str) -> Reply:
        if path == "/transcript":
            return Reply(200, await self._file(), _JSON)
        if path == "/transcript/head":
            return Reply(200, f"{self._transcript.head.hex()}\n".encode())
        nonce = _NONCE.fullmatch(path)
        if nonce is None:
            return Reply(404, b"there are /transcript, /transcript/head, /evidence/NONCE\n")
        kept = self._transcript.kept()
        report = await (await self._provider()).report(bytes.fromhex(nonce[1]) + kept.head)
        file = await asyncio.to_thread(encode_file, kept)
        body = b'{"report": "%s", "transcript": %s}' % (report.hex().encode(), file)
        return Reply(200, body, _JSON)

    async def _file(self) -> bytes:
        return await asyncio.to_thread(encode_file, self._transcript.kept())

    async def _report(self, head: bytes, reader: asyncio.StreamReader) -> Reply:
        length = _LENGTH.search(head)
        if length is None or int(length[1]) != REPORT_DATA_SIZE:
            return Reply(400, b"report data has 64 bytes\n")
        report_data = await reader.readexactly(REPORT_DATA_SIZE)
        return Reply(200, await (await self._provider()).report(report_data), _BYTES)
