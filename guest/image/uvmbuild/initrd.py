"""The initrd: init, its modules, and the list that init reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .kernel import Module

_DIRECTORY, _FILE, _DEVICE = 0o040755, 0o100644, 0o020600


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of the archive."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def contents(init: bytes, modules: Sequence[Module]) -> dict[str, Entry]:
    """What the initrd holds, by path."""
    lines = [f"{module.level} /modules/{module.name}.ko\n" for module in modules]
    return {
        "dev": Entry(_DIRECTORY),
        "dev/console": Entry(_DEVICE, device=(5, 1)),
        "init": Entry(0o100755, init),
        "modules": Entry(_DIRECTORY),
        "modules/list": Entry(_FILE, "".join(lines).encode()),
        **{f"modules/{module.name}.ko": Entry(_FILE, module.data) for module in modules},
    }


def archive(entries: Mapping[str, Entry]) -> bytes:
    """A `newc` cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst).

    Sorted, numbered by position and without times, so that it is a function of its content.
    """
    out = bytearray()
    members = [*sorted(entries.items()), ("TRAILER!!!", Entry(0))]
    for number, (path, entry) in enumerate(members, 1):
        name = path.encode() + b"\0"
        links = 2 if entry.mode == _DIRECTORY else 1
        fields = (
            number,
            entry.mode,
            0,
            0,
            links,
            0,
            len(entry.data),
            0,
            0,
            *entry.device,
            len(name),
            0,
        )
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4) + entry.data
        out += b"\0" * (-len(out) % 4)
    return bytes(out + b"\0" * (-len(out) % 512))
