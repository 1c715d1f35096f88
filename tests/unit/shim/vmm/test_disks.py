"""Unit numbers, without a QEMU."""

from __future__ import annotations

import pytest

from parma_api.status import ResourceExhaustedError
from parma_shim.vmm.disks import LunTable


def test_all_of_them_and_then_no_more() -> None:
    table = LunTable(limit=4)
    assert [table.take() for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ResourceExhaustedError, match="4 disks"):
        table.take()


def test_a_unit_just_freed_comes_last() -> None:
    table = LunTable(limit=4)
    table.take()
    table.take()
    table.release(0)
    assert [table.take() for _ in range(3)] == [2, 3, 0]
    assert 1 in table
