"""From Debian's kernel package: bzImage, vmlinux, and modules with what they depend on."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zstandard

from .config import BuildError

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SIGNATURE_MAGIC = b"~Module signature appended~\n"
_SIGNATURE_INFO = (
    12  # struct module_signature, include/linux/module_signature.h; its last 4: length
)


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module to be loaded after all of a lower level."""

    level: int
    name: str
    data: bytes


def plain_name(path: str) -> str:
    """The name the kernel uses: `dm-mod.ko.xz` is `dm_mod`."""
    return Path(path).name.split(".ko")[0].replace("-", "_")


def extract_vmlinux(bzimage: bytes) -> bytes:
    """The ELF kernel inside a zstd-compressed bzImage; BuildError if there is none."""
    at = bzimage.find(_ZSTD_MAGIC)
    while at >= 0:
        try:
            elf = zstandard.ZstdDecompressor().decompressobj().decompress(bzimage[at:])
        except zstandard.ZstdError:
            elf = b""
        if elf[:4] == b"\x7fELF":
            return elf
        at = bzimage.find(_ZSTD_MAGIC, at + 1)
    raise BuildError("no zstd-compressed ELF in the kernel image: has Debian changed it?")


def strip_signature(module: bytes) -> bytes:
    """The module without the signature at its end."""
    if not module.endswith(_SIGNATURE_MAGIC):
        return module
    end = len(module) - len(_SIGNATURE_MAGIC)
    length = int.from_bytes(module[end - 4 : end], "big")
    return module[: end - _SIGNATURE_INFO - length]


def depends(module: bytes) -> list[str]:
    """The modules that one names in its `depends=` (section .modinfo)."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [] if found is None else [n for n in found[1].decode("ascii").split(",") if n]


class ModuleTree:
    """The modules of one kernel, found by name with what they need."""

    def __init__(self, folder: Path) -> None:
        """`folder`: `usr/lib/modules/<version>` of the unpacked package."""
        self._paths = {plain_name(p.name): p for p in sorted(folder.rglob("*.ko*"))}
        builtin = (folder / "modules.builtin").read_text().splitlines()
        self._builtin = {plain_name(line) for line in builtin}
        self._data: dict[str, bytes] = {}

    def _read(self, name: str) -> bytes:
        if name not in self._data:
            path = self._paths.get(name)
            if path is None:
                raise BuildError(f"the kernel has no module {name}; see image.toml [modules]")
            raw = path.read_bytes()
            self._data[name] = lzma.decompress(raw) if path.suffix == ".xz" else raw
        return self._data[name]

    def closure(self, names: Iterable[str], *, keep_signatures: bool) -> list[Module]:
        """The named modules and their dependencies in loading order; built-in ones are left out."""
        levels: dict[str, int] = {}

        def visit(name: str) -> int:
            if name in self._builtin:
                return -1
            if name not in levels:
                data = self._read(name)
                levels[name] = 1 + max((visit(plain_name(d)) for d in depends(data)), default=-1)
            return levels[name]

        for name in names:
            visit(plain_name(name))
        return [
            Module(
                level,
                name,
                self._read(name) if keep_signatures else strip_signature(self._read(name)),
            )
            for name, level in sorted(levels.items(), key=lambda item: (item[1], item[0]))
        ]
