"""What a layer needs besides device-mapper: the proof that the mapping is the image that the policy allowed."""

from __future__ import annotations

from dataclasses import dataclass

from parma_api.block.integrity import BLOCK
from parma_api.ids import RootHash
from parma_api.status import DataLossError
from parma_guest.linux.blockdev import Disk, ScsiAddress, find_disk, opened, read_exactly, size_of
from parma_guest.linux.devmapper import DeviceMapper
from parma_guest.linux.errno import KernelError
from parma_guest.linux.ext4 import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, parse_superblock
from parma_guest.storage.claims import Claim, read_claim


@dataclass(frozen=True, slots=True)
class LayerClaim:
    """A claim, and the disk that made it."""

    address: ScsiAddress
    disk: Disk
    claim: Claim

    @property
    def root_hash(self) -> RootHash:
        """What the policy judges."""
        return self.claim.root_hash


def claim_of(address: ScsiAddress, deadline: float) -> LayerClaim:
    """Find the disk and read its claim. Blocks until time.monotonic() is `deadline` at most."""
    disk = find_disk(address, deadline)
    with opened(disk.node) as fd:
        claim = read_claim(
            lambda offset, size: read_exactly(fd, offset, size, f"the disk at {address}"),
            size_of(fd),
        )
    return LayerClaim(address, disk, claim)


@dataclass(frozen=True, slots=True)
class CheckMapping:
    """Read the first block through the mapping; the image's size stated there must be the table's.

    The root hash does not cover the length: a host could cut the image (storage.md 3).
    """

    device: str
    size: int

    def describe(self) -> str:
        return f"check {self.device}: ext4 of {self.size} bytes"

    def apply(self) -> None:
        node = DeviceMapper().node(self.device)
        try:
            with opened(node) as fd:
                block = read_exactly(fd, 0, BLOCK, self.device)
        except KernelError as error:
            raise DataLossError(
                f"{self.device}: the layer does not verify, the disk is not what it claims: {error.message}"
            ) from error
        inside = block[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE]
        stated = parse_superblock(inside).size
        if stated != self.size:
            raise DataLossError(
                f"{self.device}: the verified image has {stated} bytes, not {self.size}"
            )
