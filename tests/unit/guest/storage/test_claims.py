"""What a disk may claim, and what is refused before the policy is asked (F3c)."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.block.tables import tree_blocks
from parma_api.status import ApiError, InvalidArgumentError
from parma_guest.storage.claims import MAX_IMAGE, check_superblock, read_claim

BLOCK = 4096
SALT = bytes(32)
# Data block i is the u64 i, 512 times (storage.md 2).
ROOTS = {
    2: "8255fd6a8013794f561bc1933adfe8f311a0507d1781f58ee137dce63001bf7e",
    128: "9a582a39e824119bc004fd42db485d140b24f09399b21687318a318d771e3d1d",
    129: "1cc2c43785d621dce791947b8066c8da2ca22670b7bccde296d3d5916a67b37f",
    300: "03040e5ea86128db15b6646407930ec5c86ebfa823f8b0979cd611053ac44bfd",
}


def superblock(blocks: int) -> bytes:
    """Written out by offset, apart from the code under test."""
    data = bytearray(512)
    data[0:8] = b"verity\0\0"
    struct.pack_into("<II", data, 8, 1, 1)
    data[16:32] = bytes(range(16))
    data[32:38] = b"sha256"
    struct.pack_into("<IIQH", data, 64, BLOCK, BLOCK, blocks, 32)
    return bytes(data)


def tree(blocks: int) -> bytes:
    levels = [[struct.pack("<Q", number) * 512 for number in range(blocks)]]
    while len(levels[-1]) > 1:
        hashes = b"".join(hashlib.sha256(SALT + block).digest() for block in levels[-1])
        hashes += bytes(-len(hashes) % BLOCK)
        levels.append([hashes[at : at + BLOCK] for at in range(0, len(hashes), BLOCK)])
    return b"".join(b"".join(level) for level in reversed(levels[1:]))


def ext4_superblock(blocks: int) -> bytes:
    data = bytearray(1024)
    struct.pack_into("<I", data, 0x04, blocks)
    struct.pack_into("<I", data, 0x18, 2)
    data[0x38:0x3A] = b"\x53\xef"
    return bytes(data)


def disk(blocks: int, stated: int | None = None) -> bytes:
    """A disk whose data are never read but for the ext4 superblock."""
    image = bytearray(blocks * BLOCK)
    image[1024:2048] = ext4_superblock(blocks if stated is None else stated)
    return bytes(image) + superblock(blocks).ljust(BLOCK, b"\0") + tree(blocks)


def claim(data: bytes):
    def read(offset: int, size: int) -> bytes:
        assert 0 <= offset <= offset + size <= len(data), "read beyond the disk"
        return data[offset : offset + size]

    return read_claim(read, len(data))


@pytest.mark.parametrize(("blocks", "root"), ROOTS.items())
def test_golden_roots(blocks: int, root: str) -> None:
    found = claim(disk(blocks))
    assert found.root_hash == root
    assert (found.data_blocks, found.size) == (blocks, blocks * BLOCK)


@pytest.mark.parametrize(
    ("blocks", "count"),
    [(1, 0), (2, 1), (127, 1), (128, 1), (129, 3), (300, 4), (16384, 129), (16385, 132)],
)
def test_size_of_the_tree(blocks: int, count: int) -> None:
    assert tree_blocks(blocks) == count


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(0, b"VERITY", id="magic"),
        pytest.param(8, b"\2", id="version"),
        pytest.param(12, b"\0", id="hash type"),
        pytest.param(32, b"sha512", id="algorithm"),
        pytest.param(38, b"x", id="algorithm's padding"),
        pytest.param(64, b"\0\0", id="data block size 0"),
        pytest.param(64, b"\3\0", id="data block size 3"),
        pytest.param(68, b"\0\2", id="hash block size"),
        pytest.param(72, b"\1", id="data blocks"),
        pytest.param(79, b"\1", id="data blocks, huge"),
        pytest.param(80, b"\0", id="no salt"),
        pytest.param(80, b"\1\1", id="salt of 257 bytes"),
        pytest.param(82, b"\1", id="padding"),
        pytest.param(88, b"\1", id="another salt"),
        pytest.param(343, b"\1", id="salt's padding"),
        pytest.param(344, b"\1", id="padding at the end"),
        pytest.param(511, b"\1", id="last byte"),
    ],
)
def test_every_field_but_the_uuid_is_constant(at: int, value: bytes) -> None:
    data = bytearray(superblock(300))
    data[at : at + len(value)] = value
    with pytest.raises(InvalidArgumentError):
        check_superblock(bytes(data), 300)


@given(st.binary(min_size=16, max_size=16))
def test_the_uuid_is_not_looked_at(uuid: bytes) -> None:
    data = superblock(300)
    check_superblock(data[:16] + uuid + data[32:], 300)


@pytest.mark.parametrize("stated", [299, 301, 0, 1, 2**32 - 1])
def test_another_size_of_the_file_system(stated: int) -> None:
    with pytest.raises(InvalidArgumentError):
        claim(disk(300, stated=stated))


@pytest.mark.parametrize("cut", [1, BLOCK, 4 * BLOCK, 5 * BLOCK])
def test_a_disk_that_is_too_short(cut: int) -> None:
    with pytest.raises(InvalidArgumentError):
        claim(disk(300)[:-cut])


def test_a_vhd_footer_behind_it_is_fine() -> None:
    assert claim(disk(300) + bytes(512)).root_hash == ROOTS[300]


def test_an_image_beyond_the_limit() -> None:
    def read(offset: int, size: int) -> bytes:
        return ext4_superblock(MAX_IMAGE // BLOCK + 1)

    with pytest.raises(InvalidArgumentError, match="out of range"):
        read_claim(read, 1 << 50)


@given(st.binary(min_size=1024, max_size=1024), st.integers(min_value=0, max_value=1 << 20))
def test_nonsense_ends_in_our_own_error(data: bytes, size: int) -> None:
    def read(offset: int, length: int) -> bytes:
        assert offset + length <= max(size, 2048)
        return (data * 8)[:length]

    with pytest.raises(ApiError):
        read_claim(read, size)
