"""One folder of authorities for all tests of the stub: keys of 4096 bits take their time."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from parma_shim.psp import chain


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stub")


@pytest.fixture(scope="session")
def authority(folder: Path) -> chain.Authority:
    return chain.load_or_create(folder)


@pytest.fixture
def run_psp() -> Callable[[str], tuple[int, str]]:
    """The process with this on its standard input, when it does not serve: exit status and standard error."""

    def run(text: str) -> tuple[int, str]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            done = subprocess.run(
                [sys.executable, "-m", "parma_shim.psp.serve", str(theirs.fileno())],
                input=text,
                text=True,
                capture_output=True,
                pass_fds=[theirs.fileno()],
                timeout=60,
                check=False,
            )
        return done.returncode, done.stderr

    return run


@pytest.fixture
def synthetic_firmware() -> bytes:
    """The image of attestation reference section 11, whose launch digests are known."""

    def guid(text: str) -> bytes:
        return uuid.UUID(text).bytes_le

    def entry(data: bytes, name: str) -> bytes:
        return data + struct.pack("<H", len(data) + 18) + guid(name)

    sections = (
        (0x800000, 0x9000, 1),
        (0x80A000, 0x3000, 1),
        (0x80D000, 0x1000, 2),
        (0x80E000, 0x1000, 3),
        (0x80F000, 0x1000, 4),
        (0x810000, 0x1000, 0x10),
    )
    metadata = b"ASEV" + struct.pack("<III", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", *section) for section in sections)
    body = entry(struct.pack("<I", 0x400), "dc886566-984a-4798-a75e-5585a7bf67cc")
    body += entry(struct.pack("<II", 0x810C00, 0x400), "7255371f-3a3b-4b04-927b-1da6efa8d454")
    body += entry(struct.pack("<I", 0x80B004), "00f771de-1a7e-4fcb-890e-68c77e2fb44e")
    footer = struct.pack("<H", len(body) + 18) + guid("96b582de-1fb2-45f7-baea-a366c55a082d")
    image = bytearray((n * 7 + 3) & 0xFF for n in range(8192))
    image[8192 - 32 - len(body + footer) : 8192 - 32] = body + footer
    image[8192 - 0x400 : 8192 - 0x400 + len(metadata)] = metadata
    return bytes(image)
