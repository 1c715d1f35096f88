"""dm-integrity's layout: against the figures that a kernel gave, and without overlaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.block.integrity import BLOCK, SECTOR, TAG_BYTES, Layout

# What Linux 6.12 wrote for a device of 20 MiB with our table (tests/vm/test_volume_in_vm.py reads it anew).
SUPERBLOCK = "696e746567727400040f200001000000f09c00000000000008000000030c0000"


def test_the_superblock_of_a_kernel() -> None:
    block = Layout((20 << 20) // SECTOR).superblock()
    assert block[:32].hex() == SUPERBLOCK
    assert len(block) == BLOCK
    assert not any(block[32:])


@given(st.integers((16 << 20) // BLOCK, (64 << 30) // BLOCK), st.data())
def test_nothing_overlaps(blocks: int, data: st.DataObject) -> None:
    layout = Layout(blocks * (BLOCK // SECTOR))
    size = blocks * BLOCK
    pick = st.integers(0, layout.blocks - 1)
    one, two = sorted((data.draw(pick), data.draw(pick)))
    for block in (one, two, layout.blocks - 1):
        assert layout.initial <= layout.tag_at(block) < layout.data_at(block)
        assert layout.data_at(block) % BLOCK == 0
        assert layout.data_at(block) + BLOCK <= size
    if one != two:
        assert layout.data_at(one) + BLOCK <= layout.data_at(two)
        assert layout.tag_at(one) + TAG_BYTES <= layout.tag_at(two)
        tags = range(layout.tag_at(two), layout.tag_at(two) + TAG_BYTES)
        assert layout.data_at(one) not in tags


@pytest.mark.parametrize("block", [4095, 4096])
def test_tags_and_data_of_an_area(block: int) -> None:
    layout = Layout((64 << 20) // SECTOR)
    area, inside = divmod(block, 4096)
    start = layout.initial + area * (4096 * BLOCK + 4096 * TAG_BYTES)
    assert layout.tag_at(block) == start + inside * TAG_BYTES
    assert layout.data_at(block) == start + 4096 * TAG_BYTES + inside * BLOCK
