"""A kernel of some hundred bytes that QEMU boots by PVH: it prints a text to ttyS0, then halts or resets.

Real QEMU tests need something to boot that starts in milliseconds and ends as told. The ELF note is
XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h): entry in 32-bit protected mode with flat segments.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

BASE = 0x100000
HALT = bytes.fromhex("faf4ebfc")
"""cli; hlt; jmp back."""
RESET = bytes.fromhex("66baf90cb006eefaf4ebfc")
"""mov dx, 0xcf9; mov al, 6; out dx, al; then HALT."""
SPIN = bytes.fromhex("ebfe")
_NOTE_ENTRY = 18
_HEADERS = 52 + 2 * 32


def kernel(text: str, ending: bytes = HALT) -> bytes:
    """An ELF that says `text` and ends with `ending`."""
    say = b"".join(b"\xb0" + bytes([c]) + b"\xee" for c in text.encode())
    note_size = 12 + 4 + 4
    entry = BASE + _HEADERS + note_size
    note = struct.pack("<III4sI", 4, 4, _NOTE_ENTRY, b"Xen\0", entry)
    code = b"\x66\xba\xf8\x03" + say + ending
    size = _HEADERS + len(note) + len(code)
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    load = struct.pack("<IIIIIIII", 1, 0, BASE, BASE, size, size, 5, 4096)
    notes = struct.pack(
        "<IIIIIIII", 4, _HEADERS, BASE + _HEADERS, BASE + _HEADERS, len(note), len(note), 4, 4
    )
    return header + load + notes + note + code


def write_image(directory: Path, text: str = "tiny\n", ending: bytes = HALT) -> Path:
    """A directory that reads as a UVM image around such a kernel; its other files are empty shells."""
    contents = {
        "vmlinux": ("vmlinux", kernel(text, ending)),
        "bzImage": ("bzImage", kernel(text, ending)),
        "initrd": ("initrd.img", b"initrd\n"),
        "root": ("root.img", bytes(4096)),
    }
    files = {}
    for key, (name, data) in contents.items():
        path = directory / name
        path.write_bytes(data)
        path.chmod(0o644)
        files[key] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    document = {
        "format": 1,
        "variant": "stub",
        "kernel_version": "tiny",
        "cmdline": "console=ttyS0",
        "files": files,
    }
    (directory / "image.json").write_text(json.dumps(document))
    return directory
