"""Small layer images for tests: ext4 by mke2fs, then the verity superblock and tree, written by own code."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

BLOCK = 4096
SALT = bytes(32)


def digest(block: bytes) -> bytes:
    return hashlib.sha256(SALT + block).digest()


def verity_tree(image: bytes) -> tuple[bytes, str]:
    """The tree, top level first, and the root in hexadecimal."""
    levels: list[bytes] = []
    level = image
    while not levels or len(levels[-1]) > BLOCK:
        hashes = b"".join(digest(level[at : at + BLOCK]) for at in range(0, len(level), BLOCK))
        level = hashes + bytes(-len(hashes) % BLOCK)
        levels.append(level)
    return b"".join(reversed(levels)), digest(levels[-1]).hex()


def verity_superblock(blocks: int) -> bytes:
    return struct.pack(
        "<8sII16s32sIIQH6x256s168x",
        b"verity\0\0", 1, 1, bytes(range(16)), b"sha256", BLOCK, BLOCK, blocks, 32, SALT,
    )  # fmt: skip


def with_verity(image: bytes) -> tuple[bytes, str]:
    """The whole layer file and its root."""
    tree, root = verity_tree(image)
    return image + verity_superblock(len(image) // BLOCK).ljust(BLOCK, b"\0") + tree, root


def ext4_image(folder: Path, files: Mapping[str, bytes], mebibytes: int = 1) -> bytes:
    """An ext4 image with these files. A name that ends in `!` is a whiteout."""
    tree = folder / "tree"
    tree.mkdir(parents=True)
    for name, content in files.items():
        if name.endswith("!"):
            subprocess.run(["mknod", tree / name[:-1], "c", "0", "0"], check=True)
        else:
            (tree / name).write_bytes(content)
    image = folder / "image"
    subprocess.run(
        [
            *("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal,^resize_inode"),
            *("-d", tree, image, f"{mebibytes}M"),
        ],
        check=True,
        capture_output=True,
    )
    return image.read_bytes()
