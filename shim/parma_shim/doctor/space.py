"""Room for converted layers and scratch."""

from __future__ import annotations

import os

from parma_shim.doctor.result import Check, Finding, Host, fail, note, ok

LEAST, ENOUGH = 1 << 30, 10 << 30


def run(host: Host) -> Finding:
    """Free bytes where the layer cache is, or will be."""
    folder = host.config.lib_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    shown = f"{free >> 20} MiB free at {host.config.lib_dir}"
    if free < LEAST:
        return fail(shown, "free some, or move lib_dir (PARMA_LIB)")
    if free < ENOUGH:
        return note(shown, f"the layer cache may take {host.config.layer_cache_mib} MiB")
    return ok(shown)


CHECK = Check("space", run)
