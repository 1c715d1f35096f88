"""Golden tables, the size that dm-integrity provides, and the comparison with what the kernel shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.block import tables as dm_tables
from parma_api.block.integrity import SHORTEST_JOURNAL, provided_sectors
from parma_api.block.tables import Target
from parma_api.ids import RootHash

ROOT = RootHash("03040e5ea86128db15b6646407930ec5c86ebfa823f8b0979cd611053ac44bfd")


def test_verity_line() -> None:
    assert dm_tables.verity("8:16", 300, ROOT).describe() == (
        f"0 2400 verity 1 8:16 8:16 4096 4096 300 301 sha256 {ROOT} {'0' * 64}"
    )


def test_verity_has_no_option_that_returns_wrong_bytes() -> None:
    assert dm_tables.verity("8:16", 300, ROOT).parameters.split()[-1] == "0" * 64


def test_integrity_line() -> None:
    assert dm_tables.integrity("8:0", 129248).describe() == (
        "0 129248 integrity 8:0 0 32 D 5 "
        "journal_sectors:1 block_size:4096 interleave_sectors:32768 buffer_sectors:128 fix_padding"
    )


def test_crypt_line() -> None:
    assert dm_tables.crypt("254:1", 129248, "parma:x").describe() == (
        "0 129248 crypt capi:authenc(hmac(sha256),xts(aes))-plain64 :96:logon:parma:x 0 254:1 0 "
        "2 integrity:32:aead sector_size:4096"
    )


@pytest.mark.parametrize(
    ("tag", "wanted"), [(32, 129248), (28, 129376), (48, 128736), (16, 129568)]
)
def test_provided_sectors_as_measured_on_a_64_mib_device(tag: int, wanted: int) -> None:
    assert provided_sectors(131072, tag) == wanted


def test_provided_sectors_of_2_gib_as_seen_in_the_vm() -> None:
    assert provided_sectors(4194304) == 4129048


def test_the_shortest_journal_is_one_section() -> None:
    """132 KiB, and the kernel agreed in the VM; else 2 GiB have one of 16 MiB, as the live table below shows."""
    assert provided_sectors(4194304, journal_sectors=SHORTEST_JOURNAL) == 4161520


@pytest.mark.parametrize("size", [0, 1, 8, 100, 270, 280])
def test_too_small_a_device_provides_nothing(size: int) -> None:
    assert provided_sectors(size) == 0


@given(st.integers(min_value=300, max_value=1 << 40))
def test_provided_sectors_leave_room_for_the_tags(size: int) -> None:
    provided = provided_sectors(size)
    assert provided % 8 == 0
    assert provided + provided // 8 * 32 // 512 < size


# As the kernel shows them (6.12).
LIVE_INTEGRITY = (
    "8:0 0 32 D 5 block_size:4096 journal_sectors:32736 interleave_sectors:32768 "
    "buffer_sectors:128 fix_padding"
)


def test_the_live_integrity_table_is_recognised() -> None:
    want = dm_tables.integrity("8:0", 4129048)
    assert dm_tables.same_table(want, Target(4129048, "integrity", LIVE_INTEGRITY))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("8:0", "8:16"),
        (" 0 32", " 8 32"),
        (" 32 D", " 0 D"),
        (" D ", " J "),
        ("block_size:4096", "block_size:512"),
        ("fix_padding", "fix_padding recalculate"),
        ("fix_padding", "fix_padding internal_hash:crc32c"),
        ("interleave_sectors:32768", "interleave_sectors:16384"),
    ],
)
def test_another_integrity_table_is_not(old: str, new: str) -> None:
    want = dm_tables.integrity("8:0", 4129048)
    live = LIVE_INTEGRITY.replace(old, new, 1)
    assert live != LIVE_INTEGRITY
    assert not dm_tables.same_table(want, Target(4129048, "integrity", live))


@pytest.mark.parametrize(
    "live",
    [
        Target(8, "crypt", "cipher_null-ecb :96:logon:parma:x 0 254:1 0"),
        Target(16, "crypt", dm_tables.crypt("254:1", 8, "parma:x").parameters),
        Target(8, "linear", dm_tables.crypt("254:1", 8, "parma:x").parameters),
        Target(8, "crypt", dm_tables.crypt("254:2", 8, "parma:x").parameters),
        Target(8, "crypt", dm_tables.crypt("254:1", 8, "parma:x").parameters + " allow_discards"),
    ],
)
def test_another_crypt_table_is_not(live: Target) -> None:
    assert not dm_tables.same_table(dm_tables.crypt("254:1", 8, "parma:x"), live)
