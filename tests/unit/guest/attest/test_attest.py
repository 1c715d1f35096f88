"""Report providers against trees and processes that play the kernel and the PSP, and the choice between them."""

# ruff: noqa: ASYNC240 (a test may look at files while its loop waits)

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from parma_api.channel.stream import ByteStream, SocketStream, StreamClosedError, stream_pair
from parma_api.launch import Variant
from parma_api.snp import psp_wire
from parma_api.snp.report import SIZE
from parma_api.status import ApiError, DataLossError, FailedPreconditionError, UnavailableError
from parma_guest.agent.port import find_port
from parma_guest.attest import choose as choices
from parma_guest.attest.choose import choose
from parma_guest.attest.image import Image, Kernel, require_startable, this_image
from parma_guest.attest.sev_guest import SNP_GET_REPORT, SevGuest, read_response
from parma_guest.attest.tsm import ConfigfsTsm
from parma_guest.stub import provider as stubs
from parma_guest.stub.provider import StubProvider

REPORT = bytes(range(256)) * 4 + bytes(SIZE - 1024)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """One that says nothing of SNP."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu sev_snp_not sme\n")
    names = {
        name: str(tmp_path / name)
        for name in ("platform", "sysfs", "cpuinfo", "msr", "device", "tsm")
    }
    return Kernel(**names)


SIGNS = ["platform", "sysfs", "device", "cpuinfo", "msr"]


def say_snp(kernel: Kernel, sign: str) -> None:
    path = Path(getattr(kernel, sign))
    match sign:
        case "cpuinfo":
            path.write_text("flags\t\t: fpu sme sev sev_es sev_snp\n")
        case "msr":
            with path.open("wb") as file:
                file.truncate(0xC0010131 + 8)
                file.seek(0xC0010131)
                file.write(struct.pack("<Q", 0b111))
        case _:
            path.mkdir()


def test_nothing_says_snp(kernel: Kernel) -> None:
    assert kernel.snp_active() is None


def test_a_register_without_the_bit(kernel: Kernel) -> None:
    with Path(kernel.msr).open("wb") as file:
        file.truncate(0xC0010131 + 8)
    assert kernel.snp_active() is None


@pytest.mark.parametrize("sign", SIGNS)
def test_the_stub_image_stops_where_snp_is_active(kernel: Kernel, sign: str) -> None:
    say_snp(kernel, sign)
    with pytest.raises(FailedPreconditionError, match="stub image and SEV-SNP is active"):
        require_startable(Image.STUB, kernel)
    with pytest.raises(FailedPreconditionError):
        choose(Image.STUB, kernel)
    require_startable(Image.RELEASE, kernel)


def test_the_release_image_without_hardware_takes_no_stub(kernel: Kernel) -> None:
    with pytest.raises(FailedPreconditionError, match="no SEV-SNP"):
        choose(Image.RELEASE, kernel)


def test_the_release_image_prefers_configfs(kernel: Kernel) -> None:
    Path(kernel.device).touch()
    assert choose(Image.RELEASE, kernel).name == "sev-guest"
    Path(kernel.tsm).mkdir()
    assert choose(Image.RELEASE, kernel).name == "configfs-tsm"


def test_the_stub_image_has_the_stub_only(kernel: Kernel) -> None:
    Path(kernel.tsm).mkdir()
    assert choose(Image.STUB, kernel).name == "stub"


def test_the_image_is_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert this_image() is Image.STUB
    monkeypatch.setitem(sys.modules, "parma_guest.stub", None)
    assert this_image() is Image.RELEASE


def test_images_have_the_names_of_the_launch() -> None:
    assert {image.value for image in Image} == {variant.value for variant in Variant}


def test_no_module_of_the_release_image_imports_the_stub_at_its_top(repository: Path) -> None:
    for path in (repository / "guest/parma_guest").rglob("*.py"):
        if "stub" in path.parent.parts:
            continue
        lines = path.read_text().splitlines()
        assert not [
            n for n in lines if n.startswith(("import", "from")) and "parma_guest.stub" in n
        ]
    assert choices.__file__


# configfs-tsm: a directory whose attributes a thread of the test plays


class Tsm(ConfigfsTsm):
    """Makes what the kernel would make with the directory."""

    def __init__(self, root: Path, outblob: bytes = REPORT, writers: int = 1) -> None:
        super().__init__(str(root))
        self._outblob, self._writers = outblob, writers

    def _make(self) -> str:
        entry = Path(super()._make())
        (entry / "generation").write_text("0\n")
        (entry / "inblob").touch()
        (entry / "outblob").write_bytes(self._outblob)
        return str(entry)

    def _remove(self, entry: str) -> None:
        self.seen = (Path(entry) / "inblob").read_bytes()
        for path in Path(entry).iterdir():
            path.unlink()
        super()._remove(entry)


async def test_tsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generations = iter([0, 1])
    monkeypatch.setattr("parma_guest.attest.tsm._generation", lambda _: next(generations))
    tsm = Tsm(tmp_path)
    assert await tsm.report(b"d" * 64) == REPORT
    assert tsm.seen == b"d" * 64
    assert list(tmp_path.iterdir()) == []


async def test_tsm_tries_again_when_somebody_else_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generations = iter([0, 2, 2, 3])
    monkeypatch.setattr("parma_guest.attest.tsm._generation", lambda _: next(generations))
    assert await Tsm(tmp_path).report(bytes(64)) == REPORT


async def test_tsm_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generations = iter(range(0, 100, 2))
    monkeypatch.setattr("parma_guest.attest.tsm._generation", lambda _: next(generations))
    with pytest.raises(UnavailableError):
        await Tsm(tmp_path).report(bytes(64))
    assert list(tmp_path.iterdir()) == []


async def test_tsm_with_a_short_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generations = iter([0, 1])
    monkeypatch.setattr("parma_guest.attest.tsm._generation", lambda _: next(generations))
    with pytest.raises(DataLossError):
        await Tsm(tmp_path, REPORT[:-1]).report(bytes(64))


async def test_tsm_absent(tmp_path: Path) -> None:
    absent = ConfigfsTsm(str(tmp_path / "none"))
    assert not absent.available()
    with pytest.raises(ApiError):
        await absent.report(bytes(64))


# /dev/sev-guest


def response(status: int = 0, size: int = SIZE, report: bytes = REPORT) -> bytes:
    return (struct.pack("<II24x", status, size) + report).ljust(4000, b"\0")


def test_the_request_number() -> None:
    assert 3 << 30 | 32 << 16 | ord("S") << 8 == SNP_GET_REPORT


def test_a_response() -> None:
    assert read_response(response()) == REPORT


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (response(status=0x16), UnavailableError),
        (response(size=0), DataLossError),
        (response(size=SIZE - 1), DataLossError),
        (response(size=2**32 - 1), DataLossError),
    ],
)
def test_bad_responses(data: bytes, error: type[ApiError]) -> None:
    with pytest.raises(error):
        read_response(data)


async def test_what_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "sev-guest").touch()
    with pytest.raises(ApiError, match="SNP_GET_REPORT"):
        await SevGuest(str(tmp_path / "sev-guest")).report(bytes(64))


# The stub


class Psp:
    """Answers each request as told."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def connect(self, answer: Callable[[bytes], bytes]) -> ByteStream:
        ours, theirs = stream_pair()
        self.tasks.append(asyncio.ensure_future(self._serve(theirs, answer)))
        return ours

    async def _serve(self, stream: SocketStream, answer: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(StreamClosedError):
            while kind := await stream.read(1):
                body = b""
                while len(body) < psp_wire.body_size(kind[0]):
                    body += await stream.read(psp_wire.body_size(kind[0]) - len(body))
                reply = answer(kind + body)
                if not reply:
                    break
                for at in range(0, len(reply), 500):
                    await stream.write(reply[at : at + 500])
        stream.abort()


@pytest.fixture
async def psp() -> AsyncIterator[Psp]:
    made = Psp()
    yield made
    await asyncio.gather(*made.tasks)


def good(request: bytes) -> bytes:
    asked = psp_wire.decode_request(request)
    body = REPORT if isinstance(asked, psp_wire.ReportRequest) else b"table"
    return psp_wire.encode_answer(psp_wire.Status.OK, body)


async def test_the_stub(psp: Psp) -> None:
    stub = StubProvider(lambda: psp.connect(good))
    assert await stub.report(bytes(64)) == REPORT
    assert await stub.certificates() == b"table"
    both = await asyncio.gather(stub.report(bytes(64)), stub.report(b"x" * 64))
    assert both == [REPORT, REPORT]
    stub._drop()


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: psp_wire.encode_answer(psp_wire.Status.OK, b"", psp_wire.HOST_BUSY),
        lambda _: psp_wire.encode_answer(psp_wire.Status.OK, REPORT[:-1]),
        lambda _: psp_wire.encode_answer(psp_wire.Status.OK, REPORT + b"x"),
        lambda _: struct.pack("<IIQ", 0, 2**31, 0),
        lambda _: b"",
    ],
)
async def test_a_stub_that_answers_badly(psp: Psp, answer: Callable[[bytes], bytes]) -> None:
    answers = iter([answer, good])
    stub = StubProvider(lambda: psp.connect(next(answers)))
    with pytest.raises(ApiError):
        await stub.report(bytes(64))
    if stub._stream is None:  # half an answer never meets the next question
        assert await stub.report(bytes(64)) == REPORT
    stub._drop()


async def test_a_stub_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stubs, "SECONDS", 0.05)
    ours, theirs = stream_pair()
    with pytest.raises(UnavailableError, match="does not answer"):
        await StubProvider(lambda: ours).report(bytes(64))
    theirs.abort()


async def test_without_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stubs, "find_port", lambda _: None)
    with pytest.raises(UnavailableError, match="no stub PSP"):
        await StubProvider().report(bytes(64))


def test_ports_are_found_by_name(tmp_path: Path) -> None:
    for node, name in (("vport1p1", "parma.channel"), ("vport1p2", "parma.psp"), ("vport2p1", "x")):
        (tmp_path / node).mkdir()
        (tmp_path / node / "name").write_text(f"{name}\n")
    (tmp_path / "vport0p0").mkdir()
    assert find_port("parma.psp", str(tmp_path), "/dev") == "/dev/vport1p2"
    assert find_port("none", str(tmp_path)) is None
    assert find_port("none", str(tmp_path / "absent")) is None
    assert os.sep
