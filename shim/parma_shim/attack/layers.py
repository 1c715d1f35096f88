"""Layers of the attacker's own: a small tar, made into an image by the converter that every shim uses."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parma_api.ids import RootHash
from parma_api.layer import convert

BLOCK = 4096


@dataclass(frozen=True, slots=True)
class LayerFile:
    """An image in a file; whoever has the file can do with its bytes what he wants."""

    path: Path
    root_hash: RootHash
    image_size: int
    """Bytes of the ext4 part; the verity superblock comes next."""

    def copy(self, name: str) -> LayerFile:
        """The same bytes in another file."""
        path = self.path.with_name(name)
        path.write_bytes(self.path.read_bytes())
        return LayerFile(path, self.root_hash, self.image_size)

    def find(self, text: bytes) -> int:
        """Where `text` lies. Raises ValueError."""
        return self.path.read_bytes().index(text)

    def flip(self, at: int) -> None:
        """Turns one bit."""
        with self.path.open("r+b") as file:
            byte = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1]), at)

    def write(self, at: int, data: bytes) -> None:
        """Overwrites."""
        with self.path.open("r+b") as file:
            os.pwrite(file.fileno(), data, at)


def make_layer(path: Path, files: Mapping[str, bytes], folders: tuple[str, ...] = ()) -> LayerFile:
    """A layer of `folders` and programs or data `files` (all of them executable), at `path`."""
    image = convert(io.BytesIO(layer_tar(files, folders)), path)
    return LayerFile(path, image.root_hash, image.image_size)


def layer_tar(files: Mapping[str, bytes], folders: tuple[str, ...] = ()) -> bytes:
    """The tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in folders:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()
