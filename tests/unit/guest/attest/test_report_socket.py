"""The agent's socket for privileged containers: what it answers, and to what it says no."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from parma_api.policy.decision import DecisionRecord
from parma_api.policy.points import Point
from parma_api.snp.report import SIZE
from parma_api.status import UnavailableError
from parma_guest.agent.transcript import Transcript, encode_file
from parma_guest.attest import report_socket
from parma_guest.attest.provider import ReportProvider
from parma_guest.attest.report_socket import SOCKET, ReportSocket
from parma_tenant.verify.checks import Result
from parma_tenant.verify.transcript import check_bound, check_chain, parse_transcript

RECORD = DecisionRecord(
    point=Point.CREATE_CONTAINER,
    input={"text": 'ü"\n\ud800'},
    allowed=True,
    reason_codes=(),
    metadata_generation=1,
)


class Provider:
    """Repeats what it is asked."""

    name = "test"

    def __init__(self) -> None:
        self.refuses = False

    async def report(self, report_data: bytes) -> bytes:
        if self.refuses:
            raise UnavailableError("the processor is away")
        return bytes(0x50) + report_data + bytes(SIZE - 0x90)


class Rig:
    """A socket that listens, and its client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.transcript = Transcript()
        self.provider = Provider()
        self.socket = ReportSocket(self.transcript, self._provider)

    async def _provider(self) -> ReportProvider:
        return self.provider

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; (0, b"") when it says nothing."""
        reader, writer = await asyncio.open_unix_connection(str(self.folder / SOCKET))
        writer.write(request)
        writer.write_eof()
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        writer.close()
        if not answer:
            return 0, b""
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"\r\nContent-Length: %d\r\n" % len(body) in head + b"\r\n"
        return int(head.split()[1]), body

    async def get(self, path: str) -> tuple[int, bytes]:
        return await self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path / "report")
    await made.socket.listen(str(made.folder))
    yield made
    await made.socket.close()


async def test_only_root_gets_in(rig: Rig) -> None:
    mode = (rig.folder / SOCKET).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_the_transcript_is_the_verifiers(rig: Rig) -> None:
    for count in range(3):
        status, body = await rig.get("/transcript")
        parsed = parse_transcript(body)
        assert (status, len(parsed.texts)) == (200, count)
        assert check_chain(parsed).result is Result.PASS
        assert parsed.head == rig.transcript.head
        assert (await rig.get("/transcript/head"))[1].decode() == parsed.head.hex() + "\n"
        rig.transcript.record(replace(RECORD, metadata_generation=count))


async def test_a_transcript_that_was_cut_is_whole_for_what_it_shows() -> None:
    transcript = Transcript(max_bytes=300)
    for _ in range(9):
        transcript.record(RECORD)
    parsed = parse_transcript(encode_file(transcript.kept()))
    assert parsed.skipped > 0
    assert check_chain(parsed).result is Result.PASS


async def test_evidence_is_nonce_and_head_of_the_same_moment(rig: Rig) -> None:
    rig.transcript.record(RECORD)
    nonce = "0f" * 32
    status, body = await rig.get(f"/evidence/{nonce}")
    document = json.loads(body)
    report_data = bytes.fromhex(document["report"])[0x50:0x90]
    parsed = parse_transcript(json.dumps(document["transcript"]).encode())
    assert (status, report_data) == (200, bytes.fromhex(nonce) + rig.transcript.head)
    assert check_bound(parsed, report_data).result is Result.PASS


async def test_a_report_over_the_containers_own_data(rig: Rig) -> None:
    request = b"POST /report HTTP/1.1\r\ncontent-LENGTH: 64\r\n\r\n" + b"d" * 64
    status, body = await rig.send(request)
    assert (status, len(body), body[0x50:0x90]) == (200, SIZE, b"d" * 64)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /transcript/../x HTTP/1.1\r\n\r\n", 404),
        (b"GET /evidence/00 HTTP/1.1\r\n\r\n", 404),
        (b"GET /evidence/" + b"0" * 65 + b" HTTP/1.1\r\n\r\n", 404),
        (b"GET /evidence/" + b"zz" * 32 + b" HTTP/1.1\r\n\r\n", 404),
        (b"PUT /transcript HTTP/1.1\r\n\r\n", 404),
        (b"POST /transcript HTTP/1.1\r\n\r\n", 404),
        (b"POST /report HTTP/1.1\r\n\r\n", 400),
        (b"POST /report HTTP/1.1\r\nContent-Length: 63\r\n\r\n" + b"d" * 63, 400),
        (b"POST /report HTTP/1.1\r\nContent-Length: 64\r\n\r\nshort", 0),
        (b"\r\n\r\n", 400),
        (b"GET /transcript\r\n\r\n", 400),
        (b"\xff\xfe \x00 HTTP/1.1\r\n\r\n", 404),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 413),
        (b"GET /transcript HTTP/1.1\r\n", 0),
        (b"", 0),
    ],
)
async def test_bad_requests(rig: Rig, request_bytes: bytes, status: int) -> None:
    assert (await rig.send(request_bytes))[0] == status
    assert (await rig.get("/transcript"))[0] == 200


async def test_without_a_processor_there_is_still_a_transcript(rig: Rig) -> None:
    rig.provider.refuses = True
    assert await rig.get("/evidence/" + "00" * 32) == (503, b"the processor is away\n")
    assert (await rig.get("/transcript"))[0] == 200


async def test_who_says_nothing_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_socket, "SECONDS", 0.05)
    silent = [await asyncio.open_unix_connection(str(rig.folder / SOCKET)) for _ in range(20)]
    for reader, writer in silent:
        assert await reader.read() == b""
        writer.close()
    assert (await rig.get("/transcript"))[0] == 200
