"""The mounts that a snapshotter wants as the container's root: none of them is ever mounted.

The layers of a confidential container come from its image, as blobs that the policy names; what the host has unpacked
of them is of no use. The mounts are looked at all the same: what we do not know may mean that the container is to have
another root than its image's, and that is refused, not passed over.
"""

from __future__ import annotations

from collections.abc import Sequence

from parma_api.gen.containerd import types
from parma_api.status import UnimplementedError

KNOWN = frozenset(
    {"overlay", "bind", "ext4", "xfs", "btrfs", "zfs", "erofs", "fuse3.fuse-overlayfs"}
)
"""What the stock snapshotters give (containerd.md 4.3), and fuse-overlayfs."""
TRANSFORMS = ("format/", "mkdir/", "mkfs/")
"""Prefixes of containerd 2.2's mount manager, where the shim is left to do its work."""
MAX_MOUNTS = 256


def check_rootfs(mounts: Sequence[types.Mount]) -> None:
    """Raises UnimplementedError for what no known snapshotter gives."""
    if len(mounts) > MAX_MOUNTS:
        raise UnimplementedError(f"rootfs: more than {MAX_MOUNTS} mounts: not implemented")
    for mount in mounts:
        kind = mount.type
        while (prefix := kind.partition("/")[0] + "/") in TRANSFORMS and prefix != kind:
            kind = kind.removeprefix(prefix)
        if kind not in KNOWN:
            raise UnimplementedError(
                f"rootfs: a mount of type {mount.type[:40]!r} is not known: layers are taken from the image, use a "
                "stock snapshotter (overlayfs): not implemented"
            )
