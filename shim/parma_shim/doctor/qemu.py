"""QEMU's version."""

from __future__ import annotations

import re

from parma_shim.doctor.result import Check, Finding, Host, fail, note, ok, output_of
from parma_shim.vmm.accel import snp_problem

OLDEST, SNP_FROM = (7, 2), (9, 1)


def run(host: Host) -> Finding:
    """Is it there, is it new enough, also for SNP where the host has it?"""
    text = output_of([str(host.config.qemu), "--version"])
    found = re.search(r"version (\d+)\.(\d+)", text or "")
    if found is None:
        return fail(
            f"{host.config.qemu} does not run",
            "apt install qemu-system-x86, or set `qemu` in config.toml",
        )
    version = (int(found[1]), int(found[2]))
    shown = f"QEMU {version[0]}.{version[1]}"
    if version < OLDEST:
        return fail(shown, f"{OLDEST[0]}.{OLDEST[1]} is the oldest that works")
    if version < SNP_FROM and snp_problem(host.root) is None:
        return note(shown, f"SEV-SNP needs QEMU {SNP_FROM[0]}.{SNP_FROM[1]} or newer")
    return ok(shown)


CHECK = Check("qemu", run)
