"""What keeps QEMU without privileges."""

from __future__ import annotations

import os
import shutil

from parma_shim.doctor.result import Check, Finding, Host, fail, note, ok


def run(host: Host) -> Finding:
    """setpriv, root to become somebody else, and cgroups to put a VM into."""
    if shutil.which("setpriv", path="/usr/bin:/bin:/usr/sbin:/sbin") is None:
        return fail("no setpriv", "apt install util-linux")
    if os.geteuid() != 0:
        return note("not root: QEMU would run as you", "containerd runs its shims as root")
    cgroups = host.path("/sys/fs/cgroup")
    if (cgroups / "cgroup.controllers").exists():
        version = "version 2"
    elif (cgroups / "memory").is_dir():
        version = "version 1"
    else:
        return fail("no cgroups", "mount /sys/fs/cgroup")
    return ok(f"own user for each VM, from {host.config.uid_base:#x}; cgroups {version}")


CHECK = Check("isolation", run)
