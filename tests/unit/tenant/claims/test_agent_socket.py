"""The agent's own socket as a source of reports, against the guest's real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parma_api.status import DataLossError, UnavailableError
from parma_guest.agent.transcript import Transcript
from parma_guest.attest.provider import ReportProvider
from parma_guest.attest.report_socket import SOCKET, ReportSocket
from parma_tenant.claims.device import AGENT_SOCKET, choose_source
from parma_tenant.claims.source import AgentSource
from tests.unit.tenant.stub import StubPsp


@contextlib.asynccontextmanager
async def agent(psp: StubPsp, folder: Path) -> AsyncIterator[None]:
    async def provider() -> ReportProvider:
        return psp.source  # type: ignore[return-value]

    server = ReportSocket(Transcript(), provider)
    await server.listen(str(folder))
    try:
        yield
    finally:
        await server.close()


async def test_reports_of_the_agents_socket(psp: StubPsp, tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = (root / AGENT_SOCKET[1:]).parent
    assert AGENT_SOCKET.endswith(SOCKET)
    async with agent(psp, folder):
        source = choose_source({}, root)
        report = await source.report(b"d" * 64)
        assert report[0x50:0x90] == b"d" * 64
        assert await source.certificates() == b""
    with pytest.raises(UnavailableError):
        await AgentSource(str(root / AGENT_SOCKET[1:])).report(bytes(64))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nno", UnavailableError),
        (b"", UnavailableError),
        (b"HTTP/1.1 200 OK\r\n\r\nshort", DataLossError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1184), DataLossError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100_000), DataLossError),
    ],
)
async def test_answers_that_are_none(answer: bytes, error: type[Exception], tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    path = str(tmp_path / "s")
    async with await asyncio.start_unix_server(serve, path):
        with pytest.raises(error):
            await AgentSource(path).report(b"d" * 64)
