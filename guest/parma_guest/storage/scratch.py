"""The pod's scratch: dm-integrity for the tags, dm-crypt with a key that only this VM ever knew, ext4 without journal.

No header that the host could have written is ever read as one: the tables are constants, dm-integrity's superblock is
wiped before and compared after (storage.md 5 and 6).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from parma_api.block.integrity import SHORTEST_JOURNAL, provided_sectors
from parma_api.block.tables import KEY_BYTES, crypt, integrity
from parma_api.status import DataLossError, InvalidArgumentError
from parma_guest.linux.blockdev import (
    SECTOR,
    Disk,
    ScsiAddress,
    find_disk,
    is_read_only,
    opened,
    read_first_block,
    size_of,
    zero_first_block,
)
from parma_guest.linux.devmapper import DeviceMapper
from parma_guest.linux.keyring import erase, logon_key
from parma_guest.linux.pidfd import run

MIN_SIZE = 32 << 20
MAX_SIZE = 16 << 40
_FORMAT_SECTORS = 8
_MKFS = "/usr/sbin/mke2fs"


@dataclass(frozen=True, slots=True)
class ScratchDisk:
    """A disk that may become the scratch."""

    address: ScsiAddress
    disk: Disk
    provided: int
    """Sectors that remain for data."""


def scratch_disk(address: ScsiAddress, deadline: float) -> ScratchDisk:
    """Find the disk and compute what it will provide. Blocks. Raises InvalidArgumentError for one that cannot serve."""
    disk = find_disk(address, deadline)
    with opened(disk.node) as fd:
        size = size_of(fd)
        if is_read_only(fd):
            raise InvalidArgumentError(f"the disk at {address} is read-only: no scratch")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InvalidArgumentError(f"a scratch of {size} bytes is out of range (32 MiB to 16 TiB)")
    provided = provided_sectors(size // SECTOR, journal_sectors=SHORTEST_JOURNAL)
    return ScratchDisk(address, disk, provided)


@dataclass(frozen=True, slots=True)
class FormatIntegrity:
    """Let the kernel write a fresh superblock, and refuse one that offers another size than computed."""

    disk: Disk
    name: str
    provided: int

    def describe(self) -> str:
        return f"dm-integrity format {self.disk.number}, {self.provided} sectors"

    def apply(self) -> None:
        zero_first_block(self.disk.node)
        mapper = DeviceMapper()
        mapper.create(self.name)
        try:
            mapper.load(self.name, integrity(self.disk.number, _FORMAT_SECTORS), read_only=False)
        finally:
            mapper.remove(self.name)
        check_integrity_superblock(read_first_block(self.disk.node), self.provided)


def check_integrity_superblock(block: bytes, provided: int) -> None:
    """Raises DataLossError if what lies on the disk is not what the kernel must have written."""
    magic, stated = struct.unpack_from("<8s8xQ", block)
    if magic != b"integrt\0" or stated != provided:
        raise DataLossError(
            f"the scratch's integrity superblock offers {stated} sectors, computed were {provided}"
        )


@dataclass(frozen=True, slots=True)
class OpenCrypt:
    """Load dm-crypt with a new key, which is gone from our memory when this returns."""

    name: str
    below: str
    sectors: int

    def describe(self) -> str:
        return f"dm load {self.name} rw: crypt over {self.below}, {self.sectors} sectors, new key"

    def apply(self) -> None:
        mapper = DeviceMapper()
        key_name = f"parma:{self.name}"
        table = crypt(mapper.number(self.below), self.sectors, key_name)
        key = bytearray(KEY_BYTES)
        try:
            fill_random(key)
            with logon_key(key_name, key):
                mapper.load(self.name, table, read_only=False)
        finally:
            erase(key)
        mapper.require(self.name, table)


def fill_random(key: bytearray) -> None:
    """Fill from the kernel, straight into the buffer: `os.urandom` would leave a copy that cannot be erased."""
    with open("/dev/urandom", "rb", buffering=0) as source:  # noqa: PTH123 (pathlib costs an import)
        if source.readinto(key) != len(key):
            raise DataLossError("the kernel gave too few random bytes")


@dataclass(frozen=True, slots=True)
class MakeFilesystem:
    """ext4 that never reads a sector before it wrote it (storage.md 8)."""

    device: str
    deadline: float

    def describe(self) -> str:
        return f"mkfs.ext4 {self.device}"

    def apply(self) -> None:
        node = DeviceMapper().node(self.device)
        zero_first_block(node)
        run(mkfs_arguments(node), self.deadline)


def mkfs_arguments(node: str) -> list[str]:
    """No journal, no copies of the superblock, nothing zeroed that the kernel can take as zero."""
    return [
        _MKFS,
        *("-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-I", "256"),
        *("-O", "^has_journal,^resize_inode,sparse_super2"),
        *("-E", "num_backup_sb=0,lazy_itable_init=1,nodiscard"),
        node,
    ]
