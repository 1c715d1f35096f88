"""`--expect`: strict, with an answer for each thing that cannot be meant."""

from __future__ import annotations

import json

import pytest

from parma_api.snp.bits import AbiVersion
from parma_api.snp.report import FirmwareVersion
from parma_tenant.verify.expectation import (
    ExpectationError,
    Mitigations,
    expectation_of,
    parse_expectation,
)


def test_every_member() -> None:
    read = expectation_of(
        {
            "measurement": "aa" * 48,
            "host_data": ["bb" * 32, "CC" * 32],
            "report_data": "dd" * 64,
            "family_id": "01" * 16,
            "image_id": "02" * 16,
            "chip_id": ["03" * 64, "04" * 8],
            "id_key_digests": ["05" * 48],
            "author_key_digests": ["06" * 48],
            "vmpl": 1,
            "guest_svn_min": 2,
            "version_min": 3,
            "abi_min": "0.31",
            "firmware_min": "1.55.0",
            "tcb_min": {"bootloader": 1, "fmc": 2},
            "launch_tcb_min": {"snp": "0x18"},
            "mitigations": {"launch": "0x3f"},
            "allow_debug": True,
            "allow_migration": True,
            "allow_provisional": True,
            "allow_zero_chip_id": True,
            "allow_vlek": False,
            "forbid_smt": True,
            "require_single_socket": True,
            "require_author_key": True,
            "require_crl": True,
            "platform": {"smt": False, "alias_check": True},
        }
    )
    assert read.measurement == (b"\xaa" * 48,)
    assert read.host_data == (b"\xbb" * 32, b"\xcc" * 32)
    assert read.chip_id == (b"\x03" * 64, b"\x04" * 8)
    assert read.abi_min == AbiVersion(0, 31)
    assert read.firmware_min == FirmwareVersion(1, 55, 0)
    assert read.launch_tcb_min == {"snp": 24}
    assert read.mitigations == Mitigations(launch=63)
    assert read.allow_debug
    assert not read.allow_vlek
    assert read.platform == {"smt": False, "alias_check": True}


BAD = [
    ({"unknown": 1}, "unknown expectation 'unknown'"),
    ({"measurement": "aa"}, "48 bytes"),
    ({"measurement": "zz" * 48}, "hexadecimal"),
    ({"measurement": "aa" * 24 + " " + "aa" * 24}, "hexadecimal"),
    ({"measurement": []}, "empty list"),
    ({"measurement": [1]}, "hexadecimal"),
    ({"measurement": None}, "hexadecimal"),
    ({"report_data": "aa" * 32}, "64 bytes"),
    ({"chip_id": "aa" * 9}, "64 or 8 bytes"),
    ({"id_key_digests": "aa" * 48}, "is a list"),
    ({"vmpl": 4}, "from 0 to 3"),
    ({"vmpl": True}, "number"),
    ({"vmpl": -1}, "number"),
    ({"vmpl": "0"}, "number"),
    ({"abi_min": 31}, '"0.31"'),
    ({"abi_min": "0.31.0"}, '"0.31"'),
    ({"abi_min": "0.256"}, "at most 255"),
    ({"firmware_min": "1.55"}, '"1.55.0"'),
    ({"firmware_min": "01.55.0"}, '"1.55.0"'),
    ({"tcb_min": {"ucode": 1}}, "unknown member 'ucode'"),
    ({"tcb_min": {"snp": 256}}, "from 0 to 255"),
    ({"tcb_min": 3}, "is an object"),
    ({"mitigations": {"both": 1}}, "unknown member"),
    ({"mitigations": 63}, "is an object"),
    ({"platform": {"smt": 1}}, "true or false"),
    ({"platform": {"tio": True}}, "unknown member"),
    ({"allow_debug": "true"}, "true or false"),
    ({"allow_debug": 0}, "true or false"),
    ([], "JSON object"),
]


@pytest.mark.parametrize(("document", "message"), BAD)
def test_what_cannot_be_meant(document: object, message: str) -> None:
    with pytest.raises(ExpectationError, match=message):
        parse_expectation(json.dumps(document).encode())


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'{"vmpl":0,"vmpl":1}', b"[" * 100_000, b"\xff", b" " * (256 * 1024 + 1)],
)
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ExpectationError):
        parse_expectation(text)
