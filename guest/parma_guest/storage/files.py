"""Files that the host gives by content, beneath the pod's own directory (PutFiles).

Policies judge where a container sees them, not what is in them. Every path is opened beneath the pod's directory and
through no link, because containers write into the same tree. A refresh renames file by file: directories first, then
files, then links (kubelet's `..data` switches at once), and what is no longer named goes last.
"""

from __future__ import annotations

import enum
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from parma_api.ids import SandboxId
from parma_api.status import (
    InvalidArgumentError,
    ResourceExhaustedError,
)
from parma_api.volumes import NETWORK_FILES, pod_directory
from parma_guest.linux.beneath import Beneath, split
from parma_guest.storage.memory import mount_memory, unmount_memory

MAX_FILE = 4 << 20
MAX_TOTAL = 64 << 20
MAX_ENTRIES = 4096
_MOUNTS = "sandboxMounts"
_PERMISSIONS = 0o777
_DIRECTORY_PERMISSIONS = 0o3777
"""Set-group-id passes an fsGroup on to what is made inside."""
_MAX_ID = 2**32 - 2


class Kind(enum.Enum):
    """What an entry is; the values of the protocol's enumeration."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    MEMORY = 3
    """A directory on a tmpfs of its own, made once."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or link. Raises InvalidArgumentError for what is not within the rules."""

    path: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    content: bytes = field(default=b"", repr=False)
    append: bool = False
    size: int = 0
    """Bytes of a directory in memory; 0: what the VM has."""

    def __post_init__(self) -> None:
        parts = split(self.path)
        if self.path not in NETWORK_FILES.values() and (parts[0] != _MOUNTS or len(parts) < 2):
            raise InvalidArgumentError(
                f"{self.path!r} is neither beneath {_MOUNTS}/ nor one of the network files"
            )
        folder = self.kind in (Kind.DIRECTORY, Kind.MEMORY)
        allowed = _DIRECTORY_PERMISSIONS if folder else _PERMISSIONS
        if self.mode & ~allowed or not (0 <= self.uid <= _MAX_ID and 0 <= self.gid <= _MAX_ID):
            raise InvalidArgumentError(f"{self.path}: mode or owner is out of range")
        if len(self.content) > MAX_FILE:
            raise ResourceExhaustedError(f"{self.path}: a file has at most {MAX_FILE} bytes")
        self._check_kind()

    def _check_kind(self) -> None:
        if self.kind is not Kind.FILE and (self.append or self.path in NETWORK_FILES.values()):
            raise InvalidArgumentError(f"{self.path}: only a file can be that")
        if self.kind in (Kind.DIRECTORY, Kind.MEMORY) and self.content:
            raise InvalidArgumentError(f"{self.path}: a directory has no content")
        if self.size < 0 or (self.size and self.kind is not Kind.MEMORY):
            raise InvalidArgumentError(f"{self.path}: only a directory in memory has a size")
        if self.kind is Kind.SYMLINK:
            split(self.link_target)

    @property
    def link_target(self) -> str:
        """Where a link points: relative, downwards only. Raises InvalidArgumentError."""
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"{self.path}: the link's target is not UTF-8") from error


def check(entries: Sequence[Entry], replace: str) -> None:
    """Rules over all entries of one call. Raises InvalidArgumentError, ResourceExhaustedError."""
    if len(entries) > MAX_ENTRIES:
        raise ResourceExhaustedError(f"at most {MAX_ENTRIES} entries in one call")
    if sum(len(entry.content) for entry in entries) > MAX_TOTAL:
        raise ResourceExhaustedError(f"at most {MAX_TOTAL} bytes of files in a pod")
    if len({entry.path for entry in entries if not entry.append}) != sum(
        not entry.append for entry in entries
    ):
        raise InvalidArgumentError("a path is named twice")
    if not replace:
        return
    if split(replace)[0] != _MOUNTS or "/" not in replace:
        raise InvalidArgumentError(f"{replace!r} is not beneath {_MOUNTS}/")
    for entry in entries:
        if not entry.path.startswith(f"{replace}/"):
            raise InvalidArgumentError(f"{entry.path!r} is not beneath {replace!r}")


def order(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Directories from the top, then files as they came, then links."""
    directories = sorted(
        (entry for entry in entries if entry.kind in (Kind.DIRECTORY, Kind.MEMORY)),
        key=lambda e: e.path,
    )
    files = (entry for entry in entries if entry.kind is Kind.FILE)
    links = (entry for entry in entries if entry.kind is Kind.SYMLINK)
    return (*directories, *files, *links)


class PodFiles:
    """The files of one pod. Blocking; `put` is called in a thread."""

    def __init__(self, sandbox: SandboxId, root: str | None = None) -> None:
        self._root = root or pod_directory(sandbox)
        self._sizes: dict[str, int] = {}
        self._memory: list[str] = []

    def put(self, entries: Sequence[Entry], replace: str = "") -> None:
        """Write the entries; with `replace` that directory holds nothing else afterwards.

        Raises InvalidArgumentError, ResourceExhaustedError, KernelError.
        """
        check(entries, replace)
        sizes = self._sizes_after(entries, replace)
        with Beneath(self._root) as tree:
            if replace:
                tree.make_parents(f"{replace}/x")
            for entry in order(entries):
                if entry.kind is not Kind.MEMORY:
                    _write(tree, entry)
                elif entry.path not in self._memory:
                    mount_memory(tree, entry)
                    self._memory.append(entry.path)
            if replace:
                _prune(tree, replace, _kept(entries, replace))
        self._sizes = sizes

    def release(self) -> None:
        """Unmounts what is in memory, before the scratch around it is unmounted. Raises KernelError."""
        while self._memory:
            with Beneath(self._root) as tree:
                unmount_memory(tree, self._memory[-1])
            self._memory.pop()

    def _sizes_after(self, entries: Sequence[Entry], replace: str) -> dict[str, int]:
        sizes = {
            path: size
            for path, size in self._sizes.items()
            if not (replace and path.startswith(f"{replace}/"))
        }
        for entry in entries:
            before = sizes.get(entry.path, 0) if entry.append else 0
            sizes[entry.path] = before + len(entry.content)
            if sizes[entry.path] > MAX_FILE:
                raise ResourceExhaustedError(f"{entry.path}: a file has at most {MAX_FILE} bytes")
        if sum(sizes.values()) > MAX_TOTAL or len(sizes) > MAX_ENTRIES:
            raise ResourceExhaustedError("the pod's files are too many or too large")
        return sizes


def _write(tree: Beneath, entry: Entry) -> None:
    owner = (entry.uid, entry.gid)
    tree.make_parents(entry.path)
    if entry.kind is Kind.DIRECTORY:
        tree.mkdir(entry.path, entry.mode)
        tree.chown(entry.path, owner)
    elif entry.kind is Kind.SYMLINK:
        tree.symlink(entry.path, entry.link_target)
        tree.chown(entry.path, owner)
    elif entry.append:
        tree.append(entry.path, entry.content)
    elif entry.path in NETWORK_FILES.values() and tree.exists(entry.path):
        tree.overwrite(entry.path, entry.content)  # containers see the file itself, bound
    else:
        tree.write(entry.path, entry.content, entry.mode, owner)


def _kept(entries: Sequence[Entry], replace: str) -> frozenset[str]:
    """The entries and every directory on the way to them."""
    kept = {replace}
    for entry in entries:
        parts = entry.path.split("/")
        kept.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return frozenset(kept)


def _prune(tree: Beneath, directory: str, kept: frozenset[str]) -> None:
    """Remove what is not kept. An emptied refresh leaves the directory itself: it is bound into containers."""
    for name, mode in tree.listing(directory).items():
        path = f"{directory}/{name}"
        if path not in kept:
            tree.remove(path)
        elif stat.S_ISDIR(mode):
            _prune(tree, path, kept)
