"""Certificates told apart by content; whatever else is refused in one line."""

from __future__ import annotations

import base64
import datetime
import json
import struct
import uuid

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from parma_api.snp.certificate_table import Slot, build_table
from parma_tenant.verify.checks import Result
from parma_tenant.verify.intake import IntakeError, read_certificates, read_crl, read_sources
from parma_tenant.verify.judge import Evidence, verify
from tests.unit.tenant.verify import amd
from tests.unit.tenant.verify.conftest import VECTORS

PEM = (VECTORS / "milan-v3/vcek.pem").read_bytes()
TABLE = (VECTORS / "milan-v3/cert-table.bin").read_bytes()
THIM = (VECTORS / "milan-v2/thim.json").read_bytes()
DER = amd.chain().leaf.make().public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (PEM, 1),
        (PEM + b"\r\n\n" + PEM, 1),
        (b"\n " + PEM, 1),
        ((VECTORS / "milan-v2/chain.pem").read_bytes(), 3),
        (DER, 1),
        (TABLE, 3),
        (TABLE + bytes(4096), 3),
        (bytes(24), 0),
        (THIM, 3),
        (b"\n" + THIM + b"\n", 3),
    ],
)
def test_forms(data: bytes, count: int) -> None:
    assert len(read_certificates(data).given) == count


def thim(**changes: object) -> bytes:
    return json.dumps(json.loads(THIM) | changes).encode()


BAD: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("text", b"hello"),
    ("DER and a byte", DER + b"\0"),
    ("DER short", DER[:-1]),
    ("DER twice", DER * 2),
    ("not a certificate", b"\x30\x03\x02\x01\x01"),
    ("text before PEM", b"subject: x\n" + PEM),
    ("text behind PEM", PEM + b"x"),
    ("text between", PEM + b"x\n" + PEM),
    ("PEM without end", PEM[:-20]),
    ("PEM of a key", PEM.replace(b"CERTIFICATE", b"PRIVATE KEY")),
    ("PEM of nothing", b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n"),
    ("PEM with a wrong length", PEM.replace(b"\n-----END", b"A\n-----END")),
    ("other end", PEM.replace(b"END CERTIFICATE", b"END X509 CRL")),
    ("JSON", b"{}"),
    ("JSON cut", THIM[:-5]),
    ("JSON deep", b'{"a":' * 5000),
    ("JSON with more", thim(another=1)),
    ("JSON with a number", thim(vcekCert=1)),
    ("JSON with letters", thim(vcekCert="é")),
    ("JSON with no chain", thim(certificateChain="")),
    ("table cut", TABLE[:-1]),
    ("table and a byte", TABLE + b"\x01"),
    ("table without end", TABLE[:72]),
    ("table of nonsense", build_table({Slot.VCEK: b"\x01\x02"})),
    ("table twice", struct.pack("<16sII", Slot.VCEK.value.bytes, 72, 1) * 2 + bytes(25)),
    ("table into its header", struct.pack("<16sII", Slot.VCEK.value.bytes, 24, 10) + bytes(34)),
    ("table outside", struct.pack("<16sII", Slot.VCEK.value.bytes, 48, 2) + bytes(25)),
    ("table over 32 bits", struct.pack("<16sII", Slot.VCEK.value.bytes, 48, 0xFFFFFFFF) + bytes(25)),
    ("table too large", TABLE + bytes(16384)),
    ("too large", b"\x30" + bytes(1 << 20)),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[0])
def test_what_is_refused(case: tuple[str, bytes]) -> None:
    with pytest.raises(IntakeError) as refused:
        read_certificates(case[1])
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[0])
def test_and_so_is_the_report_with_it(
    case: tuple[str, bytes], times: dict[str, datetime.datetime]
) -> None:
    report = (VECTORS / "milan-v3/report.bin").read_bytes()
    verification = verify(Evidence(report, (TABLE, case[1])), times["milan-v3"])
    assert verification.verdict == "refuse"
    assert verification.check("chain.complete").result is Result.FAIL
    assert verification.check("chain.complete").reason


def test_unknown_entries_of_a_table_are_passed_over() -> None:
    extra = uuid.UUID("ecae0c0f-9502-43b1-afa2-0ae2e0d565b6").bytes
    entries = struct.pack("<16sII", Slot.VCEK.value.bytes, 72, len(DER))
    entries += struct.pack("<16sII", extra, 72, 8)
    assert len(read_certificates(entries + bytes(24) + DER).given) == 1


def test_each_certificate_counts_once_in_all_sources() -> None:
    assert len(read_sources([PEM, PEM + PEM, PEM]).given) == 1


def test_many_certificates_are_too_many() -> None:
    chain = amd.chain()
    many = [chain.leaf.but(serial=n).make().public_bytes(Encoding.DER) for n in range(1, 34)]
    with pytest.raises(IntakeError, match="more than 32"):
        read_sources(many)


@pytest.mark.parametrize("data", [b"", b"x", DER, PEM, amd.crl().public_bytes(Encoding.PEM) * 2])
def test_what_is_no_revocation_list(data: bytes) -> None:
    with pytest.raises(IntakeError):
        read_crl(data)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_refusal_and_no_crash(data: bytes) -> None:
    at = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    for source in (
        data,
        TABLE[:60] + data,
        b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data),
    ):
        report = (VECTORS / "milan-v3/report.bin").read_bytes()
        assert verify(Evidence(report, (source,), (data,)), at).verdict == "refuse"


@given(st.binary(min_size=1184, max_size=1184))
@settings(max_examples=50, deadline=None)
def test_any_bytes_as_a_report(data: bytes) -> None:
    at = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    assert verify(Evidence(data, (TABLE,)), at).verdict == "refuse"
