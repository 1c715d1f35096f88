"""The small numeric vectors of the layer format (17.3) and the verity roots of the storage reference (2)."""

from __future__ import annotations

import hashlib
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.block.tables import tree_blocks
from parma_api.layer.errors import AttributeSpaceError, FileTooBigError
from parma_api.layer.extents import MAX_FILE, map_run
from parma_api.layer.groups import choose_layout
from parma_api.layer.scalar import Time
from parma_api.layer.timestamp import encode, round_trip
from parma_api.layer.verity import BLOCK_SIZE, VerityTree, superblock
from parma_api.layer.xattr import entry_hash, place, read_area, read_block
from parma_api.layer.xattr_name import Name, split_name
from parma_api.layer.xattr_order import _Sorter, before, block_order

ZERO_SALT, NO_SALT = bytes(32), b""


@pytest.mark.parametrize(
    ("full", "value", "name", "expected"),
    [
        (b"user.a", b"1", Name(1, b"a"), 0x00610031),
        (b"trusted.overlay.opaque", b"y", Name(4, b"overlay.opaque"), 0xA8DF0A0D),
        (b"trusted.t", b"", Name(4, b"t"), 0x00000074),
        (
            b"security.capability",
            bytes.fromhex("0100000200200000000000000000000000000000"),
            Name(6, b"capability"),
            0x8A6182AA,
        ),
        (b"user.caf\xc3\xa9", b"12345", Name(1, b"caf\xc3\xa9"), 0x343034CF),
    ],
)
def test_attribute_hash(full: bytes, value: bytes, name: Name, expected: int) -> None:
    assert split_name(full) == name
    assert name.full == full
    assert entry_hash(name.suffix, value) == expected


def test_attribute_area() -> None:
    placed = place({b"user.a": b"1", b"trusted.overlay.opaque": b"y"})
    assert placed.block is None
    assert placed.area.hex() == (
        "000002ea"
        + "0e04600000000000010000000d0adfa8"
        + b"overlay.opaque".hex()
        + "0000"
        + "01015c0000000000010000003100610061000000"
        + "00" * 40
        + "3100000079000000"
    )


@pytest.mark.parametrize(
    ("suffixes", "expected"),
    [
        ([(6, b"zz"), (8, b"")], [(8, b""), (6, b"zz")]),
        (
            [(1, b"aa"), (1, b"ab"), (1, b"b"), (1, b"c")],
            [(1, b"b"), (1, b"c"), (1, b"aa"), (1, b"ab")],
        ),
    ],
)
def test_order_in_a_block(
    suffixes: list[tuple[int, bytes]], expected: list[tuple[int, bytes]]
) -> None:
    names = [Name(*suffix) for suffix in suffixes]
    assert [names[at] for at in block_order(names)] == expected


def pseudo_random_names(count: int, seed: int, letters: int) -> list[Name]:
    state, found = seed, []
    while len(found) < count:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        bits = state >> 20
        suffix = bytes(97 + (bits >> 5 + 5 * i) % letters for i in range(1 + bits % 3))
        found.append(Name((0, 1, 4, 6)[bits >> 2 & 3], suffix))
    return found


@pytest.mark.parametrize(
    ("letters", "count", "expected"),
    [
        (26, 12, "0f9bcd470a0af78f"),
        (26, 13, "1656215f2b9f976c"),
        (26, 20, "d553512619f66643"),
        (26, 49, "14569821fcd13d17"),
        (26, 50, "9f2d2afd97eb9b5a"),
        (26, 60, "1f4fbd849228320f"),
        (26, 100, "39102784f5f7d946"),
        (26, 150, "1d4c9facd1be2f2c"),
        (26, 253, "bc91fe794c2f9f24"),
        (2, 12, "860fa9bade5e1df5"),
        (2, 13, "bb60c350a489dfe0"),
        (2, 20, "0b5d5b7bd747004d"),
        (2, 49, "ed39bd9d9ec48aad"),
        (2, 50, "4fc02912c4e13e66"),
        (2, 60, "e84556d54d98d69c"),
        (2, 100, "9d53433d05cceb47"),
        (2, 150, "abc183064055af33"),
        (2, 253, "1aa764feb2a653e6"),
    ],
)
def test_order_is_go_sort_slice(letters: int, count: int, expected: str) -> None:
    """Digests of 100 orders each, computed with Go 1.27.3's sort.Slice and the same comparison."""
    digest = hashlib.sha256()
    for seed in range(1, 101):
        order = block_order(pseudo_random_names(count, seed, letters))
        digest.update((",".join(map(str, order)) + "\n").encode())
    assert digest.hexdigest()[:16] == expected


@given(st.lists(st.integers(0, 30), max_size=300), st.sampled_from(["sort", "heap"]))
def test_a_proper_order_is_sorted(items: list[int], way: str) -> None:
    sorter = _Sorter(items, lambda x, y: items[x] < items[y])
    expected = sorted(items)
    if way == "sort":
        sorter.sort(0, len(items), len(items).bit_length())
    else:
        sorter.heap(0, len(items))
    assert items == expected


def test_the_comparison_is_no_proper_order() -> None:
    assert before(Name(1, b"bb"), Name(6, b"a"))
    assert before(Name(6, b"a"), Name(1, b"bb"))


ATTRIBUTES = st.dictionaries(
    st.sampled_from([b"user.", b"trusted.", b"security.", b"system.", b""]).flatmap(
        lambda prefix: st.binary(min_size=1, max_size=30).map(lambda rest: prefix + b"q" + rest)
    ),
    st.binary(max_size=60),
    max_size=12,
)


@given(ATTRIBUTES)
def test_attributes_are_read_back(attributes: dict[bytes, bytes]) -> None:
    placed = place(attributes)
    found = read_area(placed.area) | (read_block(placed.block) if placed.block else {})
    assert found == attributes


def test_the_room_is_the_formats() -> None:
    assert place({b"user.a": b"v" * 76}).block is None
    assert place({b"user.a": b"v" * 77}).block is not None
    assert place({b"user.a": b"v" * 4040}).block is not None
    with pytest.raises(AttributeSpaceError):
        place({b"user.a": b"v" * 4041})
    with pytest.raises(AttributeSpaceError):
        place({b"user." + b"n" * 256: b""})


@pytest.mark.parametrize(
    ("seconds", "nanoseconds", "encoded", "again"),
    [
        (1, 500000000, 0x7735940000000001, None),
        (1600000000, 123456789, 0x1D6F34545F5E1000, None),
        (2147483647, 999999999, 0xEE6B27FC7FFFFFFF, None),
        (2147483648, 0, 0x0000000080000000, 0xFFFFFFFF80000000),
        (4294967296, 5, 0x0000001500000000, None),
        (15032385535, 1, 0x000000077FFFFFFF, None),
        (15032385536, 1, 0x000000037FFFFFFF, None),
        (-1, 0, 0xFFFFFFFFFFFFFFFF, 0x000000037FFFFFFF),
        (-2, 500000000, 0xFFFFFFFFFFFFFFFE, 0x000000037FFFFFFF),
        (-2147483649, 0, 0x0000000080000000, 0xFFFFFFFF80000000),
        (-62135596800, 0, 0, 0),
    ],
)
def test_time_stamps(seconds: int, nanoseconds: int, encoded: int, again: int | None) -> None:
    assert encode(Time(seconds, nanoseconds)) == encoded
    assert round_trip(encoded) == (encoded if again is None else again)


def test_no_time_is_zero() -> None:
    assert encode(None) == 0


@pytest.mark.parametrize(
    ("table", "inodes", "groups", "per_group", "bitmaps", "used", "blocks"),
    [
        (11, 11, 1, 16, 12, 14, 14),
        (11, 17, 1, 32, 13, 15, 15),
        (100, 5012, 1, 5024, 414, 416, 416),
        (32765, 12, 1, 16, 32766, 32768, 32768),
        (32766, 12, 2, 16, 32768, 32772, 32772),
        (60, 40051, 2, 20032, 2564, 2568, 32769),
        (1000, 200211, 7, 28608, 13516, 13530, 196609),
        (153607, 13, 5, 16, 153612, 153622, 153622),
    ],
)
def test_groups(
    table: int, inodes: int, groups: int, per_group: int, bitmaps: int, used: int, blocks: int
) -> None:
    layout = choose_layout(table, inodes)
    assert (layout.groups, layout.inodes_per_group) == (groups, per_group)
    assert (layout.bitmaps, layout.used, layout.blocks) == (bitmaps, used, blocks)


ROOTS = [
    (1, 0, ZERO_SALT, "2e534ef0107d592d1706ac38ad58596b85ef3375d360a6d669f974792df5cb5a"),
    (1, 0, NO_SALT, "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7"),
    (2, 1, ZERO_SALT, "8255fd6a8013794f561bc1933adfe8f311a0507d1781f58ee137dce63001bf7e"),
    (2, 1, NO_SALT, "2eb0a16ec243f773799280ae8cdc7668ab1e3a73ed1597e0200c849cca379204"),
    (14, 1, ZERO_SALT, "a3debee3516fcda6ad5e475dd4db14b4a2b4ca101a4115b57c49673118d687fb"),
    (127, 1, ZERO_SALT, "0585fbd53b235bb8b105c0fb9e6ddf74172242a80ef70335d99c2259fb6658e9"),
    (127, 1, NO_SALT, "8a8143e937ce50ea701c020467e0ddf218e80132d0836ee6454c0408e3cc26d7"),
    (128, 1, ZERO_SALT, "9a582a39e824119bc004fd42db485d140b24f09399b21687318a318d771e3d1d"),
    (128, 1, NO_SALT, "556952a1b809520b38c0b09650941a9b4c864077f485570e9381841444327269"),
    (129, 3, ZERO_SALT, "1cc2c43785d621dce791947b8066c8da2ca22670b7bccde296d3d5916a67b37f"),
    (129, 3, NO_SALT, "2abd7846176918c50f1873a95ee013089d36ea23bf316ebf1ae36cdbab2932de"),
    (300, 4, ZERO_SALT, "03040e5ea86128db15b6646407930ec5c86ebfa823f8b0979cd611053ac44bfd"),
    (300, 4, NO_SALT, "41939d18528dbafae99d509692432afe623938324ab0f1434498ae315fa8c8d2"),
    (16384, 129, ZERO_SALT, "2033dbd7ea8085ceea934b5e6d4b6acb56bd3cc121cd3c5b64b25fc9b23c57c5"),
    (16384, 129, NO_SALT, "16dff416c5f89cb141ebcfb4698bfffa3225690ed1afe4e86d2533bfc8f586b2"),
    (16385, 132, ZERO_SALT, "9ed8303c14019c0afdc28c8dec4bdad79a164f62ef8c98855e1e597610b9aa13"),
    (16385, 132, NO_SALT, "aa567f8f3998189f0f6c47ec071c7f9b13a585e5e135651e4bbb830f9361470a"),
]


def counting_blocks(first: int, count: int) -> memoryview:
    return memoryview(
        b"".join(struct.pack("<Q", number) * 512 for number in range(first, first + count))
    )


@pytest.mark.parametrize(("blocks", "in_tree", "salt", "root"), ROOTS)
def test_verity_roots(blocks: int, in_tree: int, salt: bytes, root: str) -> None:
    tree = VerityTree(salt)
    for first in range(0, blocks, 1000):
        tree.add(counting_blocks(first, min(1000, blocks - first)))
    assert tree.finish() == root
    assert tree_blocks(blocks) == in_tree
    if blocks > 1:
        assert sum(map(len, tree.levels())) == in_tree * BLOCK_SIZE


def test_the_superblock_is_veritysetups() -> None:
    data = superblock(16)
    assert len(data) == 512
    assert data[:16] == b"verity\0\0\1\0\0\0\1\0\0\0"
    assert data[32:64] == b"sha256".ljust(32, b"\0")
    assert struct.unpack_from("<IIQH", data, 64) == (4096, 4096, 16, 32)
    assert not any(data[16:32] + data[82:])


RUNS = st.lists(st.tuples(st.booleans(), st.integers(1, 400)), min_size=1, max_size=8)


@given(RUNS, st.data())
def test_holes_and_replaced_blocks_change_nothing(
    runs: list[tuple[bool, int]], data: st.DataObject
) -> None:
    """A tree that was fed zeros as a hole and corrected later equals one that saw the final blocks at once."""
    plain, tree, at = VerityTree(), VerityTree(), 0
    final = bytearray()
    for is_hole, count in runs:
        final += bytes(count * BLOCK_SIZE) if is_hole else counting_blocks(at, count)
        if is_hole:
            tree.add_zeros(count)
        else:
            tree.add(counting_blocks(at, count))
        at += count
    if not runs[0][0]:
        at = data.draw(st.integers(0, runs[0][1] - 1))
        final[at * BLOCK_SIZE : (at + 1) * BLOCK_SIZE] = b"\xee" * BLOCK_SIZE
        tree.replace(at, memoryview(b"\xee" * BLOCK_SIZE))
    plain.add(memoryview(final))
    assert tree.finish() == plain.finish()


def test_a_map_fills_the_inode_then_a_leaf() -> None:
    body, leaf = map_run(100, 4 * 32768)
    assert struct.unpack_from("<HHHHI", body) == (0xF30A, 4, 4, 0, 0)
    assert leaf is None
    body, leaf = map_run(100, 4 * 32768 + 1)
    assert leaf is not None
    assert struct.unpack_from("<HHHHIIIHH", body) == (0xF30A, 1, 4, 1, 0, 0, 100 + 131073, 0, 0)
    assert struct.unpack_from("<HHHHI", leaf) == (0xF30A, 5, 340, 0, 0)
    assert struct.unpack_from("<IHHI", leaf, 12 + 4 * 12) == (131072, 1, 0, 100 + 131072)


def test_extents_follow_each_other() -> None:
    _body, leaf = map_run(9, MAX_FILE // BLOCK_SIZE)
    assert leaf is not None
    assert struct.unpack_from("<HH", leaf) == (0xF30A, 339)
    extents = [struct.unpack_from("<IHHI", leaf, 12 + 12 * i) for i in range(339)]
    for (logical, length, _, start), following in pairwise(extents):
        assert (following[0], following[3]) == (logical + length, start + length)


def test_a_map_that_the_reference_gets_wrong_is_refused() -> None:
    with pytest.raises(FileTooBigError):
        map_run(9, MAX_FILE // BLOCK_SIZE + 1)
