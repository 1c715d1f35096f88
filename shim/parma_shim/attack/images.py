"""UVM images with something changed in them: directories that PARMA_UVM can name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from parma_api.launch import UvmImage, Variant
from parma_shim.vmm.image import find_image

_BLOCK, _DIGEST = 4096, 32
_SLOTS = _BLOCK // _DIGEST
_SALT = bytes(32)


def installed(environment: Mapping[str, str], variant: Variant) -> UvmImage:
    """The image that pods of this host get. Raises FailedPreconditionError."""
    return find_image(environment, variant)


def copy_image(image: UvmImage, folder: Path) -> Path:
    """The same image at `folder`, whose root and image.json may be changed. The directory."""
    folder.mkdir()
    for file in (image.vmlinux, image.bzimage, image.initrd):
        (folder / file.path.name).symlink_to(file.path)
    shutil.copyfile(image.root.path, folder / "root.img")
    shutil.copyfile(image.directory / "image.json", folder / "image.json")
    return folder


def called_stub(folder: Path) -> None:
    """Makes the launcher take an image for the stub image, and so offer it the stub's security processor."""
    path = folder / "image.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"variant": "stub"}))


def flip_root(folder: Path, at: int) -> None:
    """Turns one bit of the root file system, and leaves its hash tree alone."""
    with (folder / "root.img").open("r+b") as file:
        _flip(file.fileno(), at)


def flip_root_with_tree(folder: Path, at: int) -> None:
    """Turns one bit, and every hash on the way to the top, so that only the root hash betrays it.

    The tree of data blocks lies behind one superblock, top level first (dm-verity, on-disk format 1).
    """
    data_blocks = int(json.loads((folder / "image.json").read_text())["verity"]["blocks"])
    levels = _levels(data_blocks)
    with (folder / "root.img").open("r+b") as file:
        fd = file.fileno()
        _flip(fd, at)
        below, index = 0, at // _BLOCK
        for start in reversed(levels):
            block = os.pread(fd, _BLOCK, (below + index) * _BLOCK)
            digest = hashlib.sha256(_SALT + block).digest()
            os.pwrite(fd, digest, start * _BLOCK + index * _DIGEST)
            below, index = start, index // _SLOTS


def _levels(data_blocks: int) -> list[int]:
    """First block of each level, top level first."""
    sizes: list[int] = []
    left = data_blocks
    while left > 1:
        left = -(-left // _SLOTS)
        sizes.insert(0, left)
    at = data_blocks + 1
    starts = []
    for size in sizes:
        starts.append(at)
        at += size
    return starts


def _flip(fd: int, at: int) -> None:
    byte = os.pread(fd, 1, at)[0]
    os.pwrite(fd, bytes([byte ^ 1]), at)
