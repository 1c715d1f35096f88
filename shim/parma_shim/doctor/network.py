"""What joins a pod's interface to a VM."""

from __future__ import annotations

import os
import shutil

from parma_shim.doctor.result import Check, Finding, Host, fail, note, ok


def run(host: Host) -> Finding:
    """/dev/net/tun, and nft for port-forward."""
    if not os.access(host.path("/dev/net/tun"), os.R_OK | os.W_OK):
        return fail("no /dev/net/tun: pods get no network", "modprobe tun, and run as root")
    if shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        return note("tap", "port-forward needs nft: apt install nftables")
    return ok("tap, nft")


CHECK = Check("network", run)
