"""Devices of a container: everything denied but these, whatever its capabilities (K4). Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """A character device of the guest's."""

    path: str
    major: int
    minor: int

    def node(self) -> dict[str, object]:
        """A member of `linux.devices`; root only."""
        return {
            "path": self.path,
            "type": "c",
            "major": self.major,
            "minor": self.minor,
            "fileMode": 0o600,
            "uid": 0,
            "gid": 0,
        }


_DENY_ALL: dict[str, object] = {"allow": False, "access": "rwm"}
# Documentation/admin-guide/devices.txt: null, zero, full, random, urandom, tty, console, ptmx, and pts of any number.
_STANDARD: tuple[tuple[int, int | None], ...] = (
    (1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None),
)  # fmt: skip


def rules(
    extra: tuple[Device, ...] = (), block_majors: tuple[int, ...] = ()
) -> list[dict[str, object]]:
    """`linux.resources.devices`: deny all, then the standard devices, then `extra`, then whole block majors."""
    allowed = [_allow(major, minor) for major, minor in _STANDARD]
    allowed += [_allow(device.major, device.minor) for device in extra]
    return [dict(_DENY_ALL), *allowed, *(_allow(major, None, "b") for major in block_majors)]


def _allow(major: int, minor: int | None, kind: str = "c") -> dict[str, object]:
    rule: dict[str, object] = {"allow": True, "type": kind, "major": major, "access": "rwm"}
    return rule if minor is None else {**rule, "minor": minor}
