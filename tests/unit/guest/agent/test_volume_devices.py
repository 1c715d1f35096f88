"""Devices for encrypted volumes: found by their drivers' names, and none where the kernel has none."""

from __future__ import annotations

from parma_guest.agent.volume_devices import VolumeDevices, block_majors, open_volume_devices

DEVICES = """\
Character devices:
  1 mem
 43 nbd

Block devices:
  8 sd
 43 nbd
252 virtblk
253 device-mapper
259 blkext
"""


def test_majors_of_block_devices() -> None:
    assert block_majors(DEVICES) == (253, 43)


def test_a_driver_that_is_not_there() -> None:
    assert block_majors("Character devices:\n 10 misc\n\nBlock devices:\n  8 sd\n") == ()


def test_where_the_image_has_no_modules_there_are_no_devices() -> None:
    assert open_volume_devices() == VolumeDevices()
