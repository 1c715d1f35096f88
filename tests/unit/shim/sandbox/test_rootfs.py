"""Conformance 40: the snapshotter's mounts are known, or the container is refused."""

from __future__ import annotations

import pytest

from parma_api.gen.containerd.types import Mount
from parma_api.status import UnimplementedError
from parma_shim.sandbox.rootfs import MAX_MOUNTS, check_rootfs


@pytest.mark.parametrize(
    "kinds",
    [
        (),
        ("overlay",),
        ("bind",),
        ("ext4",),
        ("mkfs/ext4", "erofs", "erofs", "format/mkdir/overlay"),
    ],
)
def test_40_known(kinds: tuple[str, ...]) -> None:
    check_rootfs([Mount(type=kind, options=["lowerdir=/a:/b,x=.."]) for kind in kinds])


@pytest.mark.parametrize("kind", ["", "9p", "virtiofs", "overlay/x", "format/", "format/9p", "nfs"])
def test_40_unknown(kind: str) -> None:
    with pytest.raises(UnimplementedError, match=r"rootfs: .* is not known: .*: not implemented$"):
        check_rootfs([Mount(type="overlay"), Mount(type=kind)])


def test_40_too_many() -> None:
    with pytest.raises(UnimplementedError, match="more than"):
        check_rootfs([Mount(type="bind")] * (MAX_MOUNTS + 1))
