"""Who QEMU runs as: a user of its own, with the groups that /dev/kvm and /dev/sev are open to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from parma_shim.vmm.config import Accelerator, Privileges
from parma_shim.vmm.errors import VmmSetupError

DEVICES: Mapping[Accelerator, tuple[Path, ...]] = {
    Accelerator.TCG: (),
    Accelerator.KVM: (Path("/dev/kvm"),),
    Accelerator.SNP: (Path("/dev/kvm"), Path("/dev/sev")),
}
"""What QEMU itself opens by name: versions that could take these as descriptors are newer than those we support."""
_GROUP = stat.S_IRGRP | stat.S_IWGRP
_OTHERS = stat.S_IROTH | stat.S_IWOTH


def vmm_privileges(accelerator: Accelerator, uid_base: int, shim_pid: int) -> Privileges | None:
    """The user and groups for a VM; None when the shim itself is not root and cannot become another.

    Raises VmmSetupError when a device that the accelerator needs is open to root only.
    """
    if os.geteuid() != 0:
        return None
    own = uid_base + shim_pid
    return Privileges(own, own, device_groups(DEVICES[accelerator]))


def device_groups(devices: Iterable[Path]) -> tuple[int, ...]:
    """The groups that may use `devices`. Raises VmmSetupError."""
    groups: set[int] = set()
    for device in devices:
        try:
            status = device.stat()
        except OSError as error:
            raise VmmSetupError(f"{device} cannot be used: {error.strerror}") from error
        if status.st_mode & _OTHERS == _OTHERS:
            continue
        if status.st_mode & _GROUP != _GROUP or status.st_gid == 0:
            raise VmmSetupError(
                f"{device} is open to root only, and QEMU runs without privileges: "
                f"chgrp kvm {device} && chmod 660 {device}"
            )
        groups.add(status.st_gid)
    return tuple(sorted(groups))
