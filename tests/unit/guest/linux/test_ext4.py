"""The ext4 superblock's geometry, against mke2fs and against nonsense."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from parma_api.status import InvalidArgumentError
from parma_guest.linux.ext4 import parse_superblock


@pytest.mark.parametrize("block", [1024, 4096])
@pytest.mark.parametrize("bits", ["64bit", "^64bit"])
def test_geometry_of_mke2fs(tmp_path: Path, block: int, bits: str) -> None:
    image = tmp_path / "image"
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-b", str(block), "-O", bits, image, "3M"], check=True
    )
    geometry = parse_superblock(image.read_bytes()[1024:2048])
    assert geometry.block_size == block
    assert geometry.size == 3 << 20


def test_high_half_counts_only_with_its_feature() -> None:
    data = bytearray(1024)
    data[0x38:0x3A] = b"\x53\xef"
    data[0x04] = 5
    data[0x18] = 2
    data[0x150] = 1
    assert parse_superblock(bytes(data)).blocks == 5
    data[0x60] = 0x80
    assert parse_superblock(bytes(data)).blocks == (1 << 32) + 5


@pytest.mark.parametrize(
    ("at", "value"), [(0x38, 0), (0x18, 7), (0x18, 255)], ids=["magic", "64 KiB + 1", "huge"]
)
def test_nonsense_is_refused(at: int, value: int) -> None:
    data = bytearray(1024)
    data[0x38:0x3A] = b"\x53\xef"
    data[at] = value
    with pytest.raises(InvalidArgumentError):
        parse_superblock(bytes(data))


def test_another_length_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        parse_superblock(bytes(1023))
