"""The stub PSP's process makes a report; the verifier takes it only when told to trust the stub's root by name."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from parma_api.cli import run
from parma_api.snp import psp_wire

MEASUREMENT, HOST_DATA, REPORT_DATA = "6d" * 48, "68" * 32, b"\x07" * 64


@dataclass(frozen=True)
class Evidence:
    """Files as a relying party gets them."""

    report: Path
    certificates: Path
    root: Path


def ask(peer: socket.socket, request: psp_wire.Request) -> bytes:
    peer.sendall(psp_wire.encode_request(request))
    with peer.makefile("rb") as stream:
        header = stream.read(psp_wire.ANSWER_HEADER_SIZE)
        status, length, exitinfo2 = psp_wire.decode_answer_header(header)
        assert (status, exitinfo2) == (psp_wire.Status.OK, 0)
        return stream.read(length)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("stub")
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "parma_shim.psp.serve", str(theirs.fileno())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    values = {"measurement": MEASUREMENT, "host_data": HOST_DATA, "folder": str(folder / "root")}
    with ours, process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(values).encode())
        process.stdin.close()
        found = Evidence(folder / "report.bin", folder / "table.bin", folder / "root/Milan.ark.pem")
        found.report.write_bytes(ask(ours, psp_wire.ReportRequest(REPORT_DATA)))
        found.certificates.write_bytes(ask(ours, psp_wire.CertificatesRequest()))
        ours.shutdown(socket.SHUT_RDWR)
        assert process.wait(20) == 0
    return found


def attest(evidence: Evidence, *options: str | Path) -> int:
    words = ["--report", evidence.report, "--certs", evidence.certificates, *options]
    return run(["attest", "verify", *map(str, words), "--json"])


def test_trusted_by_name_only(evidence: Evidence, capsys: pytest.CaptureFixture[str]) -> None:
    assert attest(evidence) == 1
    refused = json.loads(capsys.readouterr().out)
    failures = [check["name"] for check in refused["checks"] if check["result"] == "fail"]
    assert failures == ["chain.root"]
    assert "STUB" in json.dumps(refused)

    assert attest(evidence, "--trust-root", evidence.root) == 0
    accepted = json.loads(capsys.readouterr().out)
    assert accepted["claims"]["stub"] is True
    assert "stub" in accepted["claims"]["root"]
    assert accepted["claims"]["measurement"] == MEASUREMENT


def test_expectations_hold(evidence: Evidence, tmp_path: Path) -> None:
    good = {
        "measurement": MEASUREMENT,
        "host_data": HOST_DATA,
        "report_data": REPORT_DATA.hex(),
        "vmpl": 0,
    }
    expect = tmp_path / "expect.json"
    for changes, status in (({}, 0), ({"host_data": "69" * 32}, 1), ({"vmpl": 1}, 1)):
        expect.write_text(json.dumps(good | changes))
        assert attest(evidence, "--trust-root", evidence.root, "--expect", expect) == status


def test_another_stub_is_another_root(evidence: Evidence, repository: Path) -> None:
    amd = repository / "tests/vectors/snp/milan-v3/ark.pem"
    assert attest(evidence, "--trust-root", amd) == 1
