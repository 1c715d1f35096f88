"""The pod's cgroup on the host, version 1, 2 or the hybrid: where QEMU is put.

The OCI document's `cgroupsPath` is either a path (cgroupfs driver) or `slice:prefix:name` (systemd driver); directories
are made directly in both cases. On version 1 there is one for each hierarchy with a controller; where a hierarchy of
version 2 stands beside those (hybrid) it is used for its controllers alone.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from parma_api.status import InvalidArgumentError
from parma_shim.vmm.errors import VmmSetupError

MAX_PATH = 1024
REMOVE_DEADLINE = 2.0
"""Seconds that a cgroup stays busy at most after its last process was reaped."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup file system."""

    mount: Path
    version: int
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True)
class PodCgroups:
    """Directories that take QEMU's pid; those that we made are removed again."""

    directories: tuple[Path, ...]
    made: tuple[Path, ...]

    def remove(self) -> None:
        """Removes what was made, innermost first; what is not empty, or gone, stays as it is."""
        for directory in reversed(self.made):
            _remove(directory)


def parse_hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The cgroup mounts of a /proc/self/mountinfo. Named hierarchies (systemd's own) have no controllers."""
    found: dict[Path, Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        place, kind = before.split(), after.split()
        if len(place) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        mount = Path(place[4])
        if kind[0] == "cgroup2":
            found[mount] = Hierarchy(mount, 2, frozenset())
        else:
            options = set(kind[2].split(",")) - {
                "rw",
                "ro",
                "clone_children",
                "xattr",
                "release_agent",
            }
            controllers = frozenset(
                option for option in options if "=" not in option and option != "none"
            )
            found[mount] = Hierarchy(mount, 1, controllers)
    return tuple(found.values())


def expand(cgroups_path: str) -> Path:
    """`cgroupsPath` as a relative path. Raises InvalidArgumentError.

    `a-b.slice:cri-containerd:ID` is `a.slice/a-b.slice/cri-containerd-ID.scope` (systemd.slice(5)).
    """
    if len(cgroups_path) > MAX_PATH or "\0" in cgroups_path:
        raise InvalidArgumentError("cgroupsPath is too long")
    parts = cgroups_path.split(":")
    relative = _scope(*parts) if len(parts) == 3 else Path(cgroups_path.lstrip("/"))
    if not relative.parts or ".." in relative.parts or relative.is_absolute():
        raise InvalidArgumentError(f"cgroupsPath {cgroups_path[:100]!r} names no cgroup of a pod")
    return relative


def plan(cgroups_path: str, hierarchies: Iterable[Hierarchy]) -> tuple[Path, ...]:
    """The directories for a `cgroupsPath`: pure version 2 has one, version 1 one for each controller's hierarchy."""
    relative = expand(cgroups_path)
    known = tuple(hierarchies)
    legacy = [h for h in known if h.version == 1 and h.controllers]
    chosen = legacy or [h for h in known if h.version == 2]
    return tuple(h.mount / relative for h in chosen)


def make_pod_cgroups(cgroups_path: str) -> PodCgroups:
    """Makes the pod's cgroups. Raises InvalidArgumentError, VmmSetupError; then nothing is left."""
    directories = plan(cgroups_path, parse_hierarchies(Path("/proc/self/mountinfo").read_text()))
    made: list[Path] = []
    try:
        for directory in directories:
            _make(directory, made)
    except OSError as error:
        PodCgroups((), tuple(made)).remove()
        raise VmmSetupError(
            f"the pod's cgroup {cgroups_path} cannot be made: {error.strerror}"
        ) from error
    return PodCgroups(directories, tuple(made))


def _make(directory: Path, made: list[Path]) -> None:
    missing = [directory, *directory.parents]
    for path in reversed([path for path in missing if not path.exists()]):
        with contextlib.suppress(FileExistsError):  # kubelet or another pod's shim was faster
            path.mkdir()
            made.append(path)
        _inherit_cpuset(path)


def _inherit_cpuset(path: Path) -> None:
    """A new cpuset of version 1 is empty and takes no process until it has CPUs and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = path / name
        if (
            file.exists()
            and not (path / "cgroup.controllers").exists()
            and not file.read_text().strip()
        ):
            file.write_text((path.parent / name).read_text())


def _remove(directory: Path) -> None:
    until = time.monotonic() + REMOVE_DEADLINE
    while True:
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno == errno.EBUSY and not _in_use(directory) and time.monotonic() < until:
                time.sleep(0.01)
                continue
        return


def _in_use(directory: Path) -> bool:
    """Processes or further cgroups in it are somebody's."""
    try:
        return bool((directory / "cgroup.procs").read_text()) or any(
            p.is_dir() for p in directory.iterdir()
        )
    except OSError:
        return False


def _scope(slice_name: str, prefix: str, name: str) -> Path:
    if "/" in prefix + name:
        raise InvalidArgumentError("cgroupsPath names a scope with a slash")
    return _slices(slice_name) / f"{prefix}-{name}.scope"


def _slices(name: str) -> Path:
    stem = name.removesuffix(".slice")
    if not name.endswith(".slice") or not stem or "/" in stem:
        raise InvalidArgumentError(f"cgroupsPath names no slice: {name[:100]!r}")
    parts = stem.split("-")
    return Path(*("-".join(parts[: n + 1]) + ".slice" for n in range(len(parts))))
