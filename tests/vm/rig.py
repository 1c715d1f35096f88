"""Boots a utility VM's own kernel and root with a test program in the agent's place.

The root is unpacked from the image and handed over as an initrd, so that neither verity nor a rebuild is needed for a
test of what runs inside. The image's own initrd comes first and brings the modules that its init would have loaded.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INIT = "#!/usr/bin/python3.13 -IS\n"


@dataclass(frozen=True)
class Rig:
    """What QEMU is given."""

    kernel: Path
    initrd: Path

    def arguments(self, memory: int = 1024) -> list[str]:
        return [
            *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2"),
            *("-m", str(memory), "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"),
            *("-rtc", "base=utc,clock=host", "-kernel", str(self.kernel)),
            *("-initrd", str(self.initrd), "-append"),
            "console=ttyS0 quiet panic=-1 cryptomgr.notests mitigations=off rdinit=/init",
        ]


def unpack_root(image: Path, target: Path) -> None:
    """The files of root.img."""
    subprocess.run(
        ["fsck.erofs", f"--extract={target}", "--overwrite", image / "root.img"],
        check=True,
        capture_output=True,
    )


def build(
    image: Path, repository: Path, program: Path, folder: Path, more: Sequence[str] = ()
) -> Rig:
    """A rig that runs `program` with the checkout's parma_api and parma_guest, and `more` packages of the checkout."""
    root = folder / "root"
    unpack_root(image, root)
    parma = root / "usr/lib/parma"
    ignore = shutil.ignore_patterns("__pycache__", "layer", "proto")
    for source in (repository / name for name in ("api/parma_api", "guest/parma_guest", *more)):
        shutil.rmtree(parma / source.name, ignore_errors=True)
        shutil.copytree(source, parma / source.name, ignore=ignore)
    (root / "init").write_text(INIT + program.read_text())
    (root / "init").chmod(0o755)
    initrd = folder / "initrd"
    first = (image / "initrd.img").read_bytes()
    initrd.write_bytes(first + bytes(-len(first) % 512) + archive(root))
    return Rig(image / "vmlinux", initrd)


def archive(root: Path) -> bytes:
    """A `newc` archive of a tree."""
    out = bytearray()
    paths = sorted(path for path in root.rglob("*"))
    for number, path in enumerate([*paths, None], 1):
        name, mode, data = ("TRAILER!!!", 0, b"") if path is None else _member(root, path)
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def _member(root: Path, path: Path) -> tuple[str, int, bytes]:
    mode = path.lstat().st_mode
    data = b""
    if stat.S_ISLNK(mode):
        data = os.fsencode(path.readlink())
    elif stat.S_ISREG(mode):
        data = path.read_bytes()
    return str(path.relative_to(root)), mode, data
