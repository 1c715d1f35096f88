"""The launch digest: known answers, and equality with sev-snp-measure on a synthetic image."""

from __future__ import annotations

import hashlib
import struct
import uuid
from pathlib import Path

import pytest
from sevsnpmeasure import guest, vcpu_types
from sevsnpmeasure.sev_mode import SevMode

from parma_api.snp.measure.digest import Vcpus, launch_digest, memory_digest, with_vcpus
from parma_api.snp.measure.firmware import FirmwareError, SectionKind, parse_firmware
from parma_api.snp.measure.kernel_hashes import EMPTY, KernelHashes
from parma_api.snp.measure.vmsa import SIGNATURES, signature_of, vmsa
from parma_api.status import InvalidArgumentError

APPEND = "console=ttyS0 panic=1"
SECTIONS = (
    (0x800000, 0x9000, 1),
    (0x80A000, 0x3000, 1),
    (0x80D000, 0x1000, 2),
    (0x80E000, 0x1000, 3),
    (0x80F000, 0x1000, 4),
    (0x810000, 0x1000, 0x10),
)
METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
HASHES = "7255371f-3a3b-4b04-927b-1da6efa8d454"
RESET = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"


def synthetic(
    size: int = 8192,
    sections: tuple[tuple[int, int, int], ...] = SECTIONS,
    entries: dict[str, bytes] | None = None,
    metadata: bytes | None = None,
) -> bytes:
    """An image in OVMF's form, with the values of the known answers unless told otherwise."""

    def entry(data: bytes, guid: str) -> bytes:
        return data + struct.pack("<H", len(data) + 18) + uuid.UUID(guid).bytes_le

    meta = metadata or b"ASEV" + struct.pack("<III", 16 + 12 * len(sections), 1, len(sections))
    meta += b"".join(struct.pack("<III", *section) for section in sections)
    known = {
        METADATA: struct.pack("<I", 0x400),
        HASHES: struct.pack("<II", 0x810C00, 0x400),
        RESET: struct.pack("<I", 0x80B004),
    }
    chosen = known if entries is None else entries
    body = b"".join(entry(data, guid) for guid, data in chosen.items())
    table = body + struct.pack("<H", len(body) + 18) + uuid.UUID(FOOTER).bytes_le
    image = bytearray((n * 7 + 3) & 0xFF for n in range(size))
    image[size - 32 - len(table) : size - 32] = table
    image[size - 0x400 : size - 0x400 + len(meta)] = meta
    return bytes(image)


def hashes(kernel: bytes, initrd: bytes, cmdline: str) -> KernelHashes:
    sha = hashlib.sha256
    return KernelHashes(sha(kernel).digest(), sha(initrd).digest(), cmdline)


BOTH = hashes(b"kernel", b"initrd", APPEND)
GOLDEN = [
    (
        1,
        "EPYC-v4",
        0x1,
        None,
        "756a00521d58633aa763bb7dbae8efec1ab3ea47f050fa697128a9d157ae87b605167db383b3222cb0581916fdc79770",
    ),
    (
        1,
        "EPYC-v4",
        0x21,
        None,
        "2a11a95a814f41eea89fb3415fb5d9995324526dd2c553c22828e132d048d6c37f1ed3838f95d366138d0ad3de354012",
    ),
    (
        4,
        "EPYC-v4",
        0x1,
        None,
        "8a4128081e2dc8bc5412312ade1a913c6f1e64b3faa7cfa518e03f53e783f450f5f67eb2be5d802d6414af7594642f08",
    ),
    (
        1,
        "EPYC-v4",
        0x1,
        BOTH,
        "c75dccc4d1c16b4a65b7183ce113410b2710c9a7a0956da4ec483cb574c95be3fac42eef81e16768cd5138b3662bedde",
    ),
    (
        1,
        "EPYC-v4",
        0x1,
        hashes(b"kernel", b"", ""),
        "2927d40236e5e1efe82410b619ac24c491fe935bfe379d1ab4844ca278fb33cfd31718a372e5c995f0edbf1d1dde71d9",
    ),
    (
        2,
        "EPYC-Milan",
        0x1,
        BOTH,
        "487c0fc48998b38eee5949b30845947217280bb714b3a82f475a4911bf2beee3a0a971193ee780c825d3ce08de6cf397",
    ),
    (
        2,
        "EPYC-Genoa",
        0x1,
        BOTH,
        "766f54caf23e27d5c29a0d5dd64b19797a546cd7f4a84e71da9f8370907484f5e57fd7f7fe94286158759026806feea1",
    ),
    (
        2,
        "EPYC-Turin",
        0x21,
        BOTH,
        "636bc944ac165cc6dbe999790c0fc4dc55c37b3ef2493e5f55fb9d5ffb876afcb124cd5318df03d68833bd2c3a511817",
    ),
]


def test_the_synthetic_image_is_the_known_one() -> None:
    known = "89b39dd1b46c4a7ba94025aba7cf18ff8126a57611b677d52d4d6da7fcd3276c"
    assert hashlib.sha256(synthetic()).hexdigest() == known


@pytest.mark.parametrize(("count", "model", "features", "kernel", "expected"), GOLDEN)
def test_known_answers(
    count: int, model: str, features: int, kernel: KernelHashes | None, expected: str
) -> None:
    vcpus = Vcpus(count, signature_of(model), features)
    assert launch_digest(parse_firmware(synthetic()), kernel, vcpus).hex() == expected


@pytest.mark.parametrize("model", sorted(SIGNATURES))
@pytest.mark.parametrize("features", [0x1, 0x21])
def test_equal_to_sev_snp_measure(model: str, features: int, tmp_path: Path) -> None:
    firmware = tmp_path / "ovmf"
    firmware.write_bytes(synthetic(16384))
    (tmp_path / "kernel").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "initrd").write_bytes(b"\x07" * 5000)
    theirs = guest.calc_launch_digest(
        SevMode.SEV_SNP,
        3,
        vcpu_types.CPU_SIGS[model],
        str(firmware),
        str(tmp_path / "kernel"),
        str(tmp_path / "initrd"),
        APPEND,
        features,
    )
    ours = launch_digest(
        parse_firmware(firmware.read_bytes()),
        hashes(bytes(range(256)) * 100, b"\x07" * 5000, APPEND),
        Vcpus(3, signature_of(model), features),
    )
    assert ours == theirs


def test_the_models_are_those_of_sev_snp_measure() -> None:
    assert SIGNATURES == vcpu_types.CPU_SIGS


def test_memory_is_measured_once_for_all_counts() -> None:
    firmware = parse_firmware(synthetic())
    memory = memory_digest(firmware, BOTH)
    for count in (1, 2, 7):
        vcpus = Vcpus(count, signature_of("EPYC-v4"), 1)
        assert with_vcpus(memory, firmware, vcpus) == launch_digest(firmware, BOTH, vcpus)


def test_what_the_image_says() -> None:
    firmware = parse_firmware(synthetic())
    assert [section.kind for section in firmware.sections][-1] is SectionKind.KERNEL_HASHES
    assert firmware.hash_table == 0x810C00
    assert firmware.reset_address == 0x80B004
    assert firmware.address == 2**32 - 8192
    assert firmware.checks_kernel


def test_firmware_that_checks_no_kernel() -> None:
    entries = {METADATA: struct.pack("<I", 0x400), RESET: struct.pack("<I", 0x80B004)}
    firmware = parse_firmware(synthetic(entries=entries, sections=SECTIONS[:-1]))
    assert not firmware.checks_kernel
    with pytest.raises(InvalidArgumentError, match="AmdSev"):
        launch_digest(firmware, BOTH, Vcpus(1, 0, 1))
    assert len(launch_digest(firmware, None, Vcpus(1, 0, 1))) == 48


def test_an_initrd_that_is_absent_hashes_as_nothing() -> None:
    assert hashes(b"", b"", "").initrd == EMPTY


ENTRY = struct.pack("<I", 0x400)
BAD = [
    ("empty", b""),
    ("no page", synthetic()[:-1]),
    ("no table", bytes(8192)),
    ("no metadata", synthetic(entries={RESET: ENTRY})),
    ("no reset address", synthetic(entries={METADATA: ENTRY})),
    ("metadata far away", synthetic(entries={METADATA: b"\xff" * 4, RESET: ENTRY})),
    ("metadata at the end", synthetic(entries={METADATA: bytes(4), RESET: ENTRY})),
    ("metadata of another size", synthetic(entries={METADATA: bytes(8), RESET: ENTRY})),
    ("hash table of another size", synthetic(entries={METADATA: ENTRY, RESET: ENTRY, HASHES: ENTRY})),
    ("unknown section", synthetic(sections=((0x800000, 0x1000, 9),))),
    ("uneven section", synthetic(sections=((0x800010, 0x1000, 1),))),
    ("vast section", synthetic(sections=((0x800000, 0xFFFFF000, 1),))),
    ("other magic", synthetic(metadata=b"ASEX" + struct.pack("<III", 88, 1, 6))),
    ("other version", synthetic(metadata=b"ASEV" + struct.pack("<III", 88, 2, 6))),
    ("other count", synthetic(metadata=b"ASEV" + struct.pack("<III", 88, 1, 7))),
    ("many", synthetic(metadata=b"ASEV" + struct.pack("<III", 16 + 12 * 2**24, 1, 2**24))),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[0])
def test_firmware_that_cannot_be_read(case: tuple[str, bytes]) -> None:
    with pytest.raises(FirmwareError):
        parse_firmware(case[1])


def test_a_table_whose_lengths_lie_is_refused() -> None:
    image = bytearray(synthetic())
    end = len(image) - 32
    for length in (0, 5, 17, 0xFFFF):
        changed = image.copy()
        changed[end - 18 : end - 16] = struct.pack("<H", length)
        with pytest.raises(FirmwareError):
            parse_firmware(bytes(changed))


@pytest.mark.parametrize("address", [0x810FF0, 0x820000, 0x80F000])
def test_hashes_must_fit_their_section(address: int) -> None:
    entries = {METADATA: ENTRY, RESET: ENTRY, HASHES: struct.pack("<II", address, 0x400)}
    firmware = parse_firmware(synthetic(entries=entries))
    with pytest.raises(InvalidArgumentError, match="place for kernel hashes"):
        launch_digest(firmware, BOTH, Vcpus(1, 0, 1))


@pytest.mark.parametrize(("count", "features"), [(0, 1), (513, 1), (1, -1), (1, 1 << 64)])
def test_vcpus_that_cannot_be(count: int, features: int) -> None:
    with pytest.raises(InvalidArgumentError):
        Vcpus(count, 0, features)


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match="EPYC-v4"):
        signature_of("Xeon")


def test_vmsa_is_a_page() -> None:
    page = vmsa(0x80B004, 0x800F12, 1)
    assert len(page) == 4096
    assert page[0x178:0x180] == struct.pack("<Q", 0xB004)
    assert page[0x18:0x20] == struct.pack("<Q", 0x800000)
