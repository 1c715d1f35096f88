"""The conditions that no policy can lift, and the books after a failure. No device-mapper here: mounting fails."""

from __future__ import annotations

import pytest

from parma_api.ids import ContainerId, RootHash, SandboxId
from parma_api.status import ApiError, InvalidArgumentError, NotFoundError
from parma_guest.linux.blockdev import Disk, ScsiAddress
from parma_guest.storage.claims import Claim
from parma_guest.storage.layers import LayerClaim
from parma_guest.storage.service import Storage

POD = SandboxId("1" * 64)
CONTAINER = ContainerId("2" * 64)
SCRATCH = f"/run/gcs/c/{POD}"
ROOT = f"/run/gcs/c/{CONTAINER}/rootfs"
ADDRESS = ScsiAddress(0, 1)
FOUND = LayerClaim(ADDRESS, Disk("/dev/nonexistent", "1:1"), Claim(RootHash("a" * 64), 300))


async def test_a_layer_that_cannot_be_mounted_leaves_nothing_in_the_books() -> None:
    storage = Storage()
    before = storage.snapshot()
    with pytest.raises(ApiError):
        await storage.mount_layer(FOUND, "/run/mounts/scsi/m1")
    assert storage.snapshot() == before
    storage.check_mount_layer(ADDRESS, "/run/mounts/scsi/m1")


@pytest.mark.parametrize(
    ("target", "sandbox", "filesystem"),
    [
        (SCRATCH, SandboxId("3" * 64), "ext4"),
        (SCRATCH, POD, "xfs"),
        (SCRATCH + "/x", POD, "ext4"),
        ("/run/mounts/scsi/m1", POD, "ext4"),
    ],
)
def test_conditions_of_scratch(target: str, sandbox: SandboxId, filesystem: str) -> None:
    with pytest.raises(InvalidArgumentError):
        Storage().check_mount_scratch(ADDRESS, target, sandbox, filesystem)


@pytest.mark.parametrize(
    ("target", "scratch"),
    [
        (f"/run/gcs/c/{'3' * 64}/rootfs", None),
        (ROOT, f"{SCRATCH}/scratch/{'3' * 64}"),
        (ROOT, f"{SCRATCH}/scratch/../{CONTAINER}"),
        (ROOT, f"{SCRATCH}/sandboxMounts"),
        (ROOT + "/..", None),
    ],
)
def test_conditions_of_an_overlay(target: str, scratch: str | None) -> None:
    with pytest.raises(InvalidArgumentError):
        Storage().check_mount_overlay(CONTAINER, ["/run/mounts/scsi/m1"], target, scratch)


def test_an_overlay_of_unmounted_layers() -> None:
    with pytest.raises(NotFoundError):
        Storage().check_mount_overlay(CONTAINER, ["/run/mounts/scsi/m1"], ROOT, None)
    with pytest.raises(InvalidArgumentError, match="127"):
        Storage().check_mount_overlay(CONTAINER, ["/run/mounts/scsi/m1"] * 128, ROOT, None)


def test_encryption_is_known_from_the_books_only() -> None:
    with pytest.raises(NotFoundError):
        Storage().is_encrypted(f"{SCRATCH}/scratch/{CONTAINER}")
    with pytest.raises(InvalidArgumentError):
        Storage().is_encrypted("/tmp")


@pytest.mark.parametrize("call", ["unmount_layer", "unmount_scratch", "unmount_overlay"])
async def test_every_verb_has_its_inverse_and_it_needs_something_mounted(call: str) -> None:
    with pytest.raises(NotFoundError):
        await getattr(Storage(), call)(SCRATCH)
    with pytest.raises(NotFoundError):
        getattr(Storage(), f"check_{call}")(SCRATCH)
