"""The ioctl's buffers, byte for byte."""

from __future__ import annotations

import struct

import pytest

from parma_api.block.messages import pack, unpack_device, unpack_targets
from parma_api.block.tables import Target
from parma_guest.linux.devmapper import DeviceMapper
from parma_guest.linux.errno import KernelError


def test_header() -> None:
    buffer = pack("name", flags=1 << 15, size=312)
    assert len(buffer) == 312
    assert struct.unpack_from("=5I", buffer) == (4, 0, 0, 312, 312)
    assert struct.unpack_from("=I", buffer, 28) == (1 << 15,)
    assert bytes(buffer[48:53]) == b"name\0"
    assert not any(buffer[53:])


def test_one_target() -> None:
    buffer = pack("n", target=Target(2400, "verity", "1 2 3"), size=0)
    assert struct.unpack_from("=I", buffer, 20) == (1,)
    start, length, status, following, kind = struct.unpack_from("=QQiI16s", buffer, 312)
    assert (start, length, status, following) == (0, 2400, 0, 48)
    assert kind == b"verity".ljust(16, b"\0")
    assert bytes(buffer[352:360]) == b"1 2 3\0\0\0"
    assert struct.unpack_from("=I", buffer, 12) == (len(buffer),) == (360,)


def test_answers_are_read_by_offset_from_the_first() -> None:
    buffer = pack("n", size=1024)
    struct.pack_into("=I", buffer, 20, 2)
    struct.pack_into("=QQiI16s", buffer, 312, 0, 8, 0, 64, b"linear")
    buffer[352:360] = b"8:0 0\0\0\0"
    struct.pack_into("=QQiI16s", buffer, 376, 8, 16, 0, 120, b"error")
    assert unpack_targets(buffer) == [Target(8, "linear", "8:0 0"), Target(16, "error", "")]


@pytest.mark.parametrize(
    ("device", "wanted"),
    [(0xFE03, (254, 3)), (0x00100805, (8, 0x105))],
)
def test_device_numbers(device: int, wanted: tuple[int, int]) -> None:
    buffer = pack("n")
    struct.pack_into("=Q", buffer, 40, device)
    assert unpack_device(buffer) == wanted


def test_without_the_driver_the_error_says_what_is_missing() -> None:
    with pytest.raises(KernelError, match="dm_mod"):
        DeviceMapper("/nonexistent/control").create("x")
