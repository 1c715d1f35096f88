"""The stub PSP: genuine format, own root, and nothing that a guest could set."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from parma_api.snp import psp_wire, report
from parma_api.snp.certificate_table import Slot, parse_table
from parma_api.status import InvalidArgumentError
from parma_shim.psp import chain, leaf, psp
from parma_tenant.verify.intake import read_certificates

LAUNCH = psp.LaunchValues(measurement=b"m" * 48, host_data=b"h" * 32)


THIM = {"vcekCert", "tcbm", "certificateChain", "cacheControl"}


def ask(processor: psp.Processor, request: psp_wire.Request) -> bytes:
    answer = processor.answer(psp_wire.encode_request(request))
    header = psp_wire.decode_answer_header(answer[: psp_wire.ANSWER_HEADER_SIZE])
    length = header.length
    assert (header.status, header.exitinfo2) == (psp_wire.Status.OK, 0)
    body = answer[psp_wire.ANSWER_HEADER_SIZE :]
    assert len(body) == length
    return body


def test_a_report_carries_the_launch_values_and_is_signed(authority: chain.Authority) -> None:
    data = ask(psp.Processor(authority, LAUNCH), psp_wire.ReportRequest(b"d" * 64))
    parsed = report.parse(data)
    assert (parsed.host_data, parsed.measurement, parsed.report_data) == (
        b"h" * 32,
        b"m" * 48,
        b"d" * 64,
    )
    r, s = (int.from_bytes(part, "little") for part in (parsed.signature_r, parsed.signature_s))
    key = leaf.vcek_certificate(authority, LAUNCH.chip_seed, LAUNCH.tcb).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(encode_dss_signature(r, s), data[: report.SIGNED_SIZE], ec.ECDSA(hashes.SHA384()))


def test_the_chain_holds_and_says_stub(authority: chain.Authority) -> None:
    vcek = leaf.vcek_certificate(authority, LAUNCH.chip_seed, LAUNCH.tcb)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
    for certificate, issuer in (
        (vcek, authority.ask),
        (authority.ask, authority.ark),
        (authority.ark,) * 2,
    ):
        key = issuer.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, pss, hashes.SHA384())
        assert "tub" in certificate.subject.rfc4514_string()


def test_another_tcb_is_another_key(authority: chain.Authority) -> None:
    keys = {
        leaf.leaf_key(authority, b"seed", replace(LAUNCH.tcb, microcode=n)).private_numbers()
        for n in range(3)
    }
    assert len(keys) == 3


def test_another_host_has_another_key(authority: chain.Authority, tmp_path: Path) -> None:
    """Whoever reads this source must not be able to sign as somebody's stub."""
    other = chain.load_or_create(tmp_path)
    keys = [
        leaf.leaf_key(host, b"seed", LAUNCH.tcb).private_numbers() for host in (authority, other)
    ]
    assert keys[0].private_value != keys[1].private_value


def test_the_table_holds_the_three_certificates(authority: chain.Authority) -> None:
    table = ask(psp.Processor(authority, LAUNCH), psp_wire.CertificatesRequest())
    for entry in range(3):
        offset, length = (
            int.from_bytes(table[24 * entry + at : 24 * entry + at + 4], "little")
            for at in (16, 20)
        )
        x509.load_der_x509_certificate(table[offset : offset + length])
    assert table[72:96] == bytes(24)


def test_what_a_host_hands_to_a_guest(authority: chain.Authority) -> None:
    processor = psp.Processor(authority, LAUNCH)
    document = json.loads(processor.certificates)
    assert set(document) == THIM
    assert document["tcbm"] == "DB18000000000004"
    table = parse_table(ask(processor, psp_wire.CertificatesRequest()))
    given = [cert.der for cert in read_certificates(processor.certificates).given]
    assert given == [table[Slot.VCEK], table[Slot.ASK], table[Slot.ARK]]


def test_two_at_once_make_one_authority(tmp_path: Path) -> None:
    program = "import sys, pathlib; from parma_shim.psp.chain import load_or_create as f; f(pathlib.Path(sys.argv[1]))"
    made = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in made] == [0, 0, 0]
    kept = chain.load_or_create(tmp_path)
    kept.ask.verify_directly_issued_by(kept.ark)
    assert kept.ask_key.public_key() == kept.ask.public_key()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "Milan.ark.key",
        "Milan.ark.pem",
        "Milan.ask.key",
        "Milan.ask.pem",
        "lock",
    ]


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\1short", b"\2extra", b"\1" + bytes(64) + b"\4\0\0\0", b"\xff" * 69]
)
def test_nonsense_is_an_error_status(authority: chain.Authority, data: bytes) -> None:
    answer = psp.Processor(authority, LAUNCH).answer(data)
    assert answer == psp_wire.encode_answer(psp_wire.Status.INVALID_PARAMETER)


@pytest.mark.parametrize(("measurement", "host_data"), [(b"", b"h" * 32), (b"m" * 48, b"h" * 31)])
def test_launch_values_have_their_sizes(measurement: bytes, host_data: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        psp.LaunchValues(measurement, host_data)


def test_the_process_serves_until_its_peer_closes(authority: chain.Authority, folder: Path) -> None:
    del authority  # made before, so that the process finds it
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "parma_shim.psp.serve", str(theirs.fileno())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    values = {"measurement": "6d" * 48, "host_data": "68" * 32, "folder": str(folder)}
    with ours, process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(values).encode())
        process.stdin.close()
        assert process.stdout is not None
        assert set(json.load(process.stdout)) == THIM
        ours.sendall(psp_wire.encode_request(psp_wire.ReportRequest(b"x" * 64)))
        with ours.makefile("rb") as file:
            header = file.read(psp_wire.ANSWER_HEADER_SIZE)
            assert psp_wire.decode_answer_header(header) == (0, report.SIZE, 0)
            assert report.host_data_of(file.read(report.SIZE)) == b"h" * 32
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(20) == 0
