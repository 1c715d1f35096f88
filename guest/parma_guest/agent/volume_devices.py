"""Device-mapper and network block devices for a privileged container that mounts file systems for the others.

The policy has allowed both: that it is privileged (`allow_elevated`), and, in its mount's options, that it shares.
Whoever may use device-mapper's control node rules over every mapping of the VM: such a container is trusted as the
agent is (docs/decisions/volumes.md).
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Final

from parma_api.status import ApiError
from parma_guest.linux.devmapper import CONTROL
from parma_guest.linux.modules import load_groups
from parma_guest.oci.devices import Device

log = logging.getLogger(__name__)
_DRIVERS: Final = ("device-mapper", "nbd")


@dataclass(frozen=True, slots=True)
class VolumeDevices:
    """Nodes, and the block devices' major numbers."""

    nodes: tuple[Device, ...] = ()
    block_majors: tuple[int, ...] = ()


def open_volume_devices() -> VolumeDevices:
    """Load the kernel's modules and find the devices. Blocks. None are had where a part is missing; the log says so."""
    try:
        load_groups(("volume",))
        with open("/proc/devices", encoding="ascii") as file:  # noqa: PTH123 (pathlib costs an import)
            majors = block_majors(file.read())
        about = os.stat(CONTROL)  # noqa: PTH116
    except (ApiError, OSError) as error:
        log.warning("no devices for encrypted volumes: %s", error)
        return VolumeDevices()
    node = Device(CONTROL, os.major(about.st_rdev), os.minor(about.st_rdev))
    return VolumeDevices((node,), majors)


def block_majors(devices: str) -> tuple[int, ...]:
    """The drivers' major numbers, out of the text of /proc/devices (proc(5))."""
    _, _, block = devices.partition("Block devices:")
    rows = (line.split() for line in block.splitlines())
    found = {words[1]: int(words[0]) for words in rows if len(words) == 2}
    return tuple(found[name] for name in _DRIVERS if name in found)
