"""subPaths of an emptyDir: kubelet binds a part of the host's empty folder, and the guest has the volume itself.

kubelet's bind mount says nothing of where its source lies, the kernel's mount table does (proc_pid_mountinfo(5)): the
mount's root is a path of the same file system as the emptyDir's. The document's source becomes the path within the
emptyDir, so that containers share it. subPaths of volumes with content stay as they are: they are sent as files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from parma_api.volumes import empty_dir_of
from parma_shim.errors import RefusedError
from parma_shim.sandbox.document import Object, objects, text

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountRow:
    """One row of the mount table."""

    device: str
    root: str
    point: str
    filesystem: str


def parse_mounts(table: str) -> tuple[MountRow, ...]:
    """Rows in order; later ones cover earlier ones. Pure."""
    rows = []
    for line in table.splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        if len(words) > 4 and rest:
            rows.append(MountRow(words[2], _plain(words[3]), _plain(words[4]), rest.split()[0]))
    return tuple(rows)


def _plain(path: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), path)


def host_mounts() -> tuple[MountRow, ...]:
    """Of the namespace that kubelet mounts in, which is containerd's and ours."""
    data = Path("/proc/self/mountinfo").read_bytes()
    return parse_mounts(data.decode(errors="surrogateescape"))


def resolve_subpaths(
    document: Object,
    read: Callable[[], Iterable[MountRow]] = host_mounts,
    is_directory: Callable[[str], bool] = os.path.isdir,
) -> Object:
    """The document with such sources replaced. Blocking. Raises RefusedError for one that cannot be found."""
    mounts = objects(document, "mounts")
    wanted = {}
    for mount in mounts:
        source = text(mount, "source")
        volume = empty_dir_of(source)
        if volume is not None and is_directory(volume):
            wanted[source] = volume
    if not wanted:
        return document
    rows = tuple(read())
    found = {source: resolved(source, volume, rows) for source, volume in wanted.items()}
    return {
        **document,
        "mounts": [
            {**mount, "source": found.get(text(mount, "source"), text(mount, "source"))}
            if text(mount, "source")
            else mount
            for mount in mounts
        ],
    }


def resolved(source: str, volume: str, rows: Iterable[MountRow]) -> str:
    """The path within the emptyDir at `volume` that is mounted at `source`. Pure. Raises RefusedError."""
    table = tuple(rows)
    part = _covering(source, table)
    whole = _covering(volume, table)
    if part is not None and part.point == source and whole is not None:
        inside = whole.root.rstrip("/") + volume.removeprefix(whole.point.rstrip("/"))
        if part.device == whole.device and (part.root + "/").startswith(f"{inside}/"):
            return volume + part.root.removeprefix(inside)
    raise RefusedError(
        f"subPath at {source[:200]}: it cannot be told which part of the emptyDir it is"
    )


def _covering(path: str, rows: Iterable[MountRow]) -> MountRow | None:
    """The mount that a path lies in."""
    best: MountRow | None = None
    for row in rows:
        point = row.point.rstrip("/")
        above = path == point or path.startswith(f"{point}/")
        if above and (best is None or len(point) >= len(best.point.rstrip("/"))):
            best = row
    return best
