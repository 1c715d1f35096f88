"""Plans: which operations make or unmake a layer, a scratch, an overlay. Pure: describes, touches nothing."""

from __future__ import annotations

from collections.abc import Sequence

from parma_api.block import tables as dm_tables
from parma_api.ids import RootHash
from parma_guest.linux.mount import MS_NOATIME, MS_NODEV, MS_RDONLY
from parma_guest.ops import Operation
from parma_guest.storage.devices import CreateDevice, LoadTable, RemoveDevice
from parma_guest.storage.directories import MakeDirectory, MountDevice, RemoveDirectory, Unmount
from parma_guest.storage.layers import CheckMapping, LayerClaim
from parma_guest.storage.ledger import Layer, Overlay, Scratch
from parma_guest.storage.overlay import (
    EMPTY,
    DiscardContainerScratch,
    MakeContainerScratch,
    MountOverlay,
    without_repetition,
)
from parma_guest.storage.scratch import (
    FormatIntegrity,
    MakeFilesystem,
    OpenCrypt,
    ScratchDisk,
)

Plan = tuple[Operation, ...]


def mount_layer(layer: Layer, found: LayerClaim) -> Plan:
    """Verity from the claimed root and constants, checked through the mapping, then mounted read-only.

    Set-id files of the image work; device nodes do not.
    """
    claim = found.claim
    table = dm_tables.verity(found.disk.number, claim.data_blocks, layer.root_hash)
    return (
        CreateDevice(layer.device),
        LoadTable(layer.device, table, read_only=True),
        CheckMapping(layer.device, claim.size),
        MakeDirectory(layer.target),
        MountDevice(layer.device, layer.target, "ext4", MS_RDONLY | MS_NODEV, "noload"),
    )


def unmount_layer(layer: Layer) -> Plan:
    """The inverse; the first step alone can find it in use."""
    return Unmount(layer.target), RemoveDirectory(layer.target), RemoveDevice(layer.device)


def mount_scratch(scratch: Scratch, found: ScratchDisk, mkfs_deadline: float) -> Plan:
    """Integrity, encryption with a new key, a new file system."""
    return (
        FormatIntegrity(found.disk, scratch.integrity, found.provided),
        CreateDevice(scratch.integrity),
        LoadTable(
            scratch.integrity,
            dm_tables.integrity(found.disk.number, found.provided),
            read_only=False,
        ),
        CreateDevice(scratch.crypt),
        OpenCrypt(scratch.crypt, scratch.integrity, found.provided),
        MakeFilesystem(scratch.crypt, mkfs_deadline),
        MakeDirectory(scratch.target),
        # Inode tables are not zeroed in the background: 16 MB of encrypted writes for each GiB, for nothing.
        # No barriers: nothing here survives the VM.
        MountDevice(
            scratch.crypt, scratch.target, "ext4", MS_NODEV | MS_NOATIME, "noinit_itable,barrier=0"
        ),
    )


def unmount_scratch(scratch: Scratch) -> Plan:
    """The inverse. With the mapping the kernel's copy of the key is gone."""
    return (
        Unmount(scratch.target),
        RemoveDirectory(scratch.target),
        RemoveDevice(scratch.crypt),
        RemoveDevice(scratch.integrity),
    )


def mount_overlay(overlay: Overlay, layers: Sequence[Layer]) -> Plan:
    """`layers` top first. Overlay settings are all explicit: the kernel's defaults are its builder's choice."""
    lowers = without_repetition((RootHash(layer.root_hash), layer.target) for layer in layers)
    if overlay.scratch_path is None:
        return (
            MakeDirectory(EMPTY),
            MakeDirectory(overlay.target),
            MountOverlay(overlay.target, (*lowers, EMPTY), None),
        )
    return (
        MakeContainerScratch(overlay.scratch_path),
        MakeDirectory(overlay.target),
        MountOverlay(overlay.target, lowers, overlay.scratch_path),
    )


def unmount_overlay(overlay: Overlay, trash: str) -> Plan:
    """The inverse; what the container wrote goes to `trash`."""
    base: Plan = (
        Unmount(overlay.target),
        RemoveDirectory(overlay.target),
        RemoveDirectory(overlay.target.removesuffix("/rootfs")),
    )
    if overlay.scratch_path is None:
        return base
    return (*base, DiscardContainerScratch(overlay.scratch_path, trash))
