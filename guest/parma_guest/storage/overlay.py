"""A container's root: the layers in the policy's order, and on top of them a directory on the scratch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from parma_api.ids import RootHash
from parma_api.volumes import GUEST_ROOT
from parma_guest.linux import mount
from parma_guest.linux.beneath import Beneath
from parma_guest.linux.errno import kernel_call
from parma_guest.ops import Undo

EMPTY = "/run/parma/empty"
"""Below a single layer: overlayfs wants two if nothing is writable."""
_SETTINGS = (
    ("index", "off"),
    ("xino", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "off"),
    ("nfs_export", "off"),
)


def without_repetition(layers: Iterable[tuple[RootHash, str]]) -> tuple[str, ...]:
    """Targets, top first, each root hash once: its topmost occurrence.

    overlayfs refuses a directory that occurs twice (ELOOP), also behind a bind mount; images with a repeated layer
    exist. The lower occurrence adds nothing: whatever it holds, a file, a directory, a whiteout or an opaque mark, the
    upper one holds at the same path, and the upper one is asked first.
    """
    seen: dict[RootHash, str] = {}
    for root, target in layers:
        seen.setdefault(root, target)
    return tuple(seen.values())


def options(lowers: Sequence[str], scratch_path: str | None) -> tuple[tuple[str, str | None], ...]:
    """What fsconfig is told; `lowers` top first, at least two if there is no scratch."""
    rows: list[tuple[str, str | None]] = [("lowerdir+", lower) for lower in lowers]
    if scratch_path is None:
        rows.append(("ro", None))
    else:
        rows += [("upperdir", f"{scratch_path}/upper"), ("workdir", f"{scratch_path}/work")]
    return (*rows, *_SETTINGS)


@dataclass(frozen=True, slots=True)
class MountOverlay:
    """Mount it; no limit on the length of the options, since each layer is told by itself."""

    target: str
    lowers: tuple[str, ...]
    scratch_path: str | None

    def describe(self) -> str:
        upper = self.scratch_path or "none"
        return f"mount overlay on {self.target}: upper {upper}, lower {' '.join(self.lowers)}"

    def apply(self) -> Undo:
        attributes = mount.MOUNT_ATTR_NODEV
        if self.scratch_path is None:
            attributes |= mount.MOUNT_ATTR_RDONLY
        mount.mount_configured(
            "overlay", options(self.lowers, self.scratch_path), self.target, attributes
        )
        return lambda: mount.umount(self.target)


@dataclass(frozen=True, slots=True)
class MakeContainerScratch:
    """`upper` and `work` on the pod's scratch. What is there already is another container's life: refused."""

    path: str
    root: str = GUEST_ROOT

    def describe(self) -> str:
        return f"make {self.path}/upper and work"

    def apply(self) -> Undo:
        inner = self.path.removeprefix(f"{self.root}/")
        with Beneath(self.root) as tree:
            tree.make_parents(inner, 0o700)
            tree.mkdir_new(inner, 0o700)
            tree.mkdir_new(f"{inner}/upper", 0o755)
            tree.mkdir_new(f"{inner}/work", 0o700)
        return self._undo

    def _undo(self) -> None:
        for name in ("work/work", "work/index", "work", "upper", ""):
            with suppress(FileNotFoundError):
                os.rmdir(f"{self.path}/{name}")  # noqa: PTH106 (pathlib costs an import)


@dataclass(frozen=True, slots=True)
class DiscardContainerScratch:
    """Give the directory a name that nothing uses, to be emptied later (`service.Storage`)."""

    path: str
    trash: str

    def describe(self) -> str:
        return f"discard {self.path}"

    def apply(self) -> Undo:
        with kernel_call("rename", self.path):
            os.rename(self.path, self.trash)  # noqa: PTH104 (pathlib costs an import)
        return lambda: os.rename(self.trash, self.path)  # noqa: PTH104
