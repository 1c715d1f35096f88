"""containerd's version."""

from __future__ import annotations

import re

from parma_shim.doctor.result import Check, Finding, Host, fail, ok, output_of

OLDEST = (1, 6)


def run(host: Host) -> Finding:
    """Is it there, and new enough?"""
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\S+)", output_of(["containerd", "--version"]) or "")
    if found is None:
        return fail("no containerd", "apt install containerd")
    shown = f"containerd {found[1]}.{found[2]}.{found[3]}"
    if (int(found[1]), int(found[2])) < OLDEST:
        return fail(shown, "1.6 is the oldest that works")
    return ok(shown)


CHECK = Check("containerd", run)
