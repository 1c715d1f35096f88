"""The stub's processor as the shim starts it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from parma_api.snp import psp_wire
from parma_api.status import UnavailableError
from parma_shim.sandbox.processor import start_processor

VALUES = {"measurement": "6d" * 48, "host_data": "68" * 32}


async def test_it_tells_its_certificates_and_serves(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        processor = start_processor(theirs.fileno(), {**VALUES, "folder": str(tmp_path)})
        try:
            told = await processor.certificates()
            assert json.loads(told)["vcekCert"].startswith("-----BEGIN CERTIFICATE-----")
            assert await processor.certificates() is told
            ours.sendall(psp_wire.encode_request(psp_wire.CertificatesRequest()))
            assert psp_wire.decode_answer_header(ours.recv(psp_wire.ANSWER_HEADER_SIZE))[0] == 0
        finally:
            await processor.close()
        await processor.close()


@pytest.mark.parametrize("values", [{}, {**VALUES, "host_data": "68"}])
async def test_one_that_ends_says_why(tmp_path: Path, values: dict[str, str]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        processor = start_processor(theirs.fileno(), {**values, "folder": str(tmp_path)})
        with pytest.raises(UnavailableError, match=r"the stub PSP has ended: \w+"):
            await processor.certificates()
        await processor.close()
