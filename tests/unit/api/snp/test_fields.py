"""TCBs, products, bit fields, reserved bytes, certificate tables: bytes only."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.snp.bits import AbiVersion, KeyInfo, abi_of, key_info
from parma_api.snp.certificate_table import (
    MAX_SIZE,
    Slot,
    TableError,
    build_table,
    looks_like_table,
    parse_table,
)
from parma_api.snp.product import ProductLine, TcbLayout, line_named, line_of_cpuid, line_of_report
from parma_api.snp.report import KNOWN_VERSIONS, parse
from parma_api.snp.reserved import nonzero_reserved, reserved_ranges
from parma_api.snp.tcb import Tcb, TcbError, parse_tcb

VECTORS = Path(__file__).parents[3] / "vectors/snp"
MILAN, TURIN = TcbLayout.MILAN, TcbLayout.TURIN


@pytest.mark.parametrize(
    ("raw", "layout", "tcb"),
    [
        ("0300000000000873", MILAN, Tcb(MILAN, 3, 0, 8, 0x73)),
        ("04000000000018db", MILAN, Tcb(MILAN, 4, 0, 24, 219)),
        ("0101010400000051", TURIN, Tcb(TURIN, 1, 1, 4, 0x51, fmc=1)),
        ("0102030400000005", TURIN, Tcb(TURIN, 2, 3, 4, 5, fmc=1)),
    ],
)
def test_tcb(raw: str, layout: TcbLayout, tcb: Tcb) -> None:
    assert parse_tcb(bytes.fromhex(raw), layout) == tcb
    assert tcb.to_bytes().hex() == raw


@pytest.mark.parametrize("layout", list(TcbLayout))
def test_spare_bytes_of_a_tcb_are_zero(layout: TcbLayout) -> None:
    spare = {MILAN: (2, 3, 4, 5), TURIN: (4, 5, 6)}[layout]
    for byte in range(8):
        raw = bytearray(8)
        raw[byte] = 1
        if byte in spare:
            with pytest.raises(TcbError, match="must be zero"):
                parse_tcb(bytes(raw), layout)
        else:
            assert sum(parse_tcb(bytes(raw), layout).components().values()) == 1


@pytest.mark.parametrize("raw", [b"", bytes(7), bytes(9)])
def test_a_tcb_has_eight_bytes(raw: bytes) -> None:
    with pytest.raises(TcbError):
        parse_tcb(raw, MILAN)


def test_tcbs_compare_component_by_component_and_in_one_layout_only() -> None:
    low, high = Tcb(MILAN, 3, 9, 8, 1), Tcb(MILAN, 4, 0, 8, 2)
    assert low.below(high) == ("bootloader", "microcode")
    assert high.below(low) == ("tee",)
    assert low.below(low) == ()
    with pytest.raises(TcbError, match="cannot be compared"):
        low.below(Tcb(TURIN, 0, 0, 0, 0, fmc=0))


def test_fmc_is_turins() -> None:
    with pytest.raises(TcbError):
        Tcb(MILAN, 0, 0, 0, 0, fmc=1)
    with pytest.raises(TcbError):
        Tcb(TURIN, 0, 0, 0, 0)
    with pytest.raises(TcbError):
        Tcb(MILAN, 256, 0, 0, 0)


@pytest.mark.parametrize(
    ("family", "model", "line"),
    [
        (0x19, 0x00, ProductLine.MILAN),
        (0x19, 0x0F, ProductLine.MILAN),
        (0x19, 0x10, ProductLine.GENOA),
        (0x19, 0x1F, ProductLine.GENOA),
        (0x19, 0x20, None),
        (0x19, 0x9F, None),
        (0x19, 0xA0, ProductLine.GENOA),
        (0x19, 0xAF, ProductLine.GENOA),
        (0x19, 0xB0, None),
        (0x1A, 0x00, ProductLine.TURIN),
        (0x1A, 0x11, ProductLine.TURIN),
        (0x1A, 0x12, None),
        (0x1A, 0x50, ProductLine.VENICE),
        (0x17, 0x31, None),
        (0, 0, None),
    ],
)
def test_products(family: int, model: int, line: ProductLine | None) -> None:
    assert line_of_cpuid(family, model) is line


def test_product_names() -> None:
    assert line_named("Milan-B0") is ProductLine.MILAN
    assert line_named("Turin") is ProductLine.TURIN
    assert [line_named(name) for name in ("", "milan", "Rome-B0", "-Milan")] == [None] * 4
    assert ProductLine.TURIN.chip_id_size == 8
    assert ProductLine.GENOA.chip_id_size == 64
    assert ProductLine.GENOA.tcb_layout is MILAN


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("milan-v2", None),
        ("milan-v3", ProductLine.MILAN),
        ("genoa-v3", ProductLine.GENOA),
        ("turin-v5", ProductLine.TURIN),
    ],
)
def test_the_reports_name_their_product(name: str, line: ProductLine | None) -> None:
    data = (VECTORS / name / "report.bin").read_bytes()
    assert line_of_report(parse(data)) is line
    assert nonzero_reserved(data, parse(data).version) == ()


def test_abi() -> None:
    assert abi_of(0x3001F) == AbiVersion(0, 31)
    assert abi_of(0x30137) == AbiVersion(1, 55)
    assert str(AbiVersion(1, 55)) == "1.55"
    assert AbiVersion(1, 0) > AbiVersion(0, 55)


def test_key_info() -> None:
    assert key_info(0) == KeyInfo(
        author_key_enabled=False, mask_chip_key=False, signing_key=0, reserved=0
    )
    assert key_info(0b111_1_1) == KeyInfo(
        author_key_enabled=True, mask_chip_key=True, signing_key=7, reserved=0
    )
    assert key_info(1 << 31).reserved == 1 << 26


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
def test_reserved_ranges_are_apart_and_in_order(version: int) -> None:
    ranges = reserved_ranges(version)
    edges = [edge for pair in ranges for edge in pair]
    assert edges == sorted(edges)
    covered = {offset for start, end in ranges for offset in range(start, end)}
    assert (0x188 in covered) is (version < 3)
    assert (0x1F8 in covered) is (version < 5)
    assert 0x49F in covered
    assert 0x2A0 not in covered


slots = st.dictionaries(st.sampled_from(Slot), st.binary(min_size=1, max_size=64))


@given(slots, st.integers(0, 64))
def test_tables_round_trip_with_padding(certificates: dict[Slot, bytes], padding: int) -> None:
    table = build_table(certificates)
    assert parse_table(table + bytes(padding)) == certificates
    assert looks_like_table(table)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_table(data: bytes) -> None:
    try:
        parse_table(data)
    except TableError as error:
        assert "\n" not in error.message  # noqa: PT017


def entry(guid: uuid.UUID, offset: int, length: int) -> bytes:
    return struct.pack("<16sII", guid.bytes, offset, length)


UNKNOWN = uuid.UUID("ecae0c0f-9502-43b1-afa2-0ae2e0d565b6")
VCEK = Slot.VCEK.value


def test_overlapping_entries_are_allowed() -> None:
    table = entry(VCEK, 72, 4) + entry(Slot.ASK.value, 74, 4) + bytes(24) + b"abcdef"
    assert parse_table(table) == {Slot.VCEK: b"abcd", Slot.ASK: b"cdef"}


@pytest.mark.parametrize(
    "table",
    [
        b"",
        bytes(23),
        entry(VCEK, 24, 1),
        entry(VCEK, 24, 1) + b"x",
        entry(VCEK, 48, 2) + bytes(24) + b"x",
        entry(VCEK, 47, 1) + bytes(24) + b"x",
        entry(VCEK, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24),
        entry(VCEK, 72, 1) * 2 + bytes(24) + b"x",
        entry(UNKNOWN, 72, 1) * 2 + bytes(24) + b"x",
        entry(VCEK, 48, 1) + bytes(24) + b"xy",
        bytes(24) + b"x",
        bytes(MAX_SIZE + 1),
    ],
)
def test_tables_that_are_none(table: bytes) -> None:
    with pytest.raises(TableError):
        parse_table(table)
