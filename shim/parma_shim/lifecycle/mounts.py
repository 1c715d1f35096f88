"""Mounts below a folder, taken away: containerd removes a bundle's whole tree, what is mounted in it included."""

from __future__ import annotations

import os

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
"""include/uapi or sys/mount.h: umount2(2)."""
_PASSES = 64
"""Mounts stacked on one another at one place."""


def mounts_below(folder: str, mountinfo: str) -> list[str]:
    """Mount points at or below `folder`, innermost first; mountinfo of proc(5), spaces as \\040."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            point = _unescape(fields[4])
            if point == folder or point.startswith(folder + "/"):
                found.append(point)
    return sorted(found, key=lambda point: point.count("/"), reverse=True)


def unmount_below(folder: str) -> list[str]:
    """Detaches all of them; result: a line for each that could not be."""
    real = os.path.realpath(folder)
    if real == "/":
        return ["refusing to unmount everything below /"]
    failed: dict[str, str] = {}
    for _ in range(_PASSES):
        left = [point for point in mounts_below(real, _mountinfo()) if point not in failed]
        if not left:
            break
        failed.update(_detach(left))
    return [f"{point} cannot be unmounted: {reason}" for point, reason in failed.items()]


def _mountinfo() -> str:
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123
        return os.fsdecode(file.read())


def _detach(points: list[str]) -> dict[str, str]:
    import ctypes  # rarely needed, and not cheap

    libc = ctypes.CDLL(None, use_errno=True)
    failed = {}
    for point in points:
        if libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
            failed[point] = os.strerror(ctypes.get_errno())
    return failed


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for code in ("\\040", "\\011", "\\012", "\\134"):
        text = text.replace(code, chr(int(code[1:], 8)))
    return text
