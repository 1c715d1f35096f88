"""Files of the host as messages to the guest: volumes with content, and the pod's network files.

A volume is read as it is on disk: directories, files, and links as links (kubelet's `..data`), never through them.
Messages stay below a size that the channel carries in one piece; a long file goes in several.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parma_api.gen.parma.agent.v1 import FileEntry, FileEntryKind
from parma_api.status import ResourceExhaustedError
from parma_shim.errors import RefusedError

MAX_FILE = 4 << 20
MAX_TOTAL = 64 << 20
MAX_ENTRIES = 4096
MAX_DEPTH = 32
MESSAGE = 3 << 20
"""Bytes of content in one message; the codec takes 4 MiB in all."""
MOUNTS = "sandboxMounts"
FILE, DIRECTORY, SYMLINK, MEMORY = (FileEntryKind(number) for number in range(4))


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of a volume from the next, without reading it."""

    marks: tuple[tuple[str, int, int, int], ...]


def read_tree(source: str, path: str) -> tuple[FileEntry, ...]:
    """The file or directory at `source` as entries at `path` beneath the pod's directory. Blocking.

    Raises RefusedError, ResourceExhaustedError.
    """
    entries: list[FileEntry] = []
    total = 0
    for entry in _walk(source, path, MAX_DEPTH):
        entries.append(entry)
        total += len(entry.content)
        if len(entries) > MAX_ENTRIES or total > MAX_TOTAL:
            raise ResourceExhaustedError(
                f"volume {source}: more than {MAX_ENTRIES} files or {MAX_TOTAL >> 20} MiB are not sent to a VM"
            )
    return tuple(entries)


def read_file(source: str, path: str) -> FileEntry:
    """One file, through a link if there is one (CRI's resolv.conf). Raises RefusedError, ResourceExhaustedError."""
    try:
        with open(source, "rb") as file:  # noqa: PTH123
            return _file_entry(path, os.fstat(file.fileno()), file.read(MAX_FILE + 1))
    except OSError as error:
        raise RefusedError(f"{source} cannot be read: {error.strerror}") from error


def empty_directory(source: str, path: str, *, in_memory: bool) -> FileEntry:
    """A directory of that mode and owner, whatever is in it on the host; in memory, of the size that it has there.

    Blocking. Raises RefusedError.
    """
    try:
        status = os.stat(source)  # noqa: PTH116
        space = os.statvfs(source)
    except OSError as error:
        raise RefusedError(f"{source} cannot be read: {error.strerror}") from error
    return FileEntry(
        path=path,
        kind=MEMORY if in_memory else DIRECTORY,
        mode=stat.S_IMODE(status.st_mode) & 0o3777,
        uid=status.st_uid,
        gid=status.st_gid,
        size=space.f_blocks * space.f_frsize if in_memory else 0,
    )


def messages(entries: Sequence[FileEntry]) -> Iterator[list[FileEntry]]:
    """Batches of bounded size, in order; parts of a file after its first are marked as such."""
    batch: list[FileEntry] = []
    size = 0
    for entry in entries:
        for part in _parts(entry):
            if batch and size + len(part.content) > MESSAGE:
                yield batch
                batch, size = [], 0
            batch.append(part)
            size += len(part.content) + len(part.path) + 64
    if batch:
        yield batch


def version_of(source: str) -> Version:
    """Of a volume with `..data`, what it points to; of another, the state of its files. Blocking, cheap."""
    marks = []
    try:
        names = ["", *sorted(os.listdir(source))] if os.path.isdir(source) else [""]  # noqa: PTH112, PTH208
    except OSError:
        names = [""]
    for name in names[:MAX_ENTRIES]:
        try:
            status = os.lstat(f"{source}/{name}" if name else source)
        except OSError:
            continue
        marks.append((name, status.st_ino, status.st_mtime_ns, status.st_size))
    return Version(tuple(marks))


def _walk(source: str, path: str, depth: int) -> Iterator[FileEntry]:
    try:
        status = os.lstat(source)
        if stat.S_ISDIR(status.st_mode):
            if depth == 0:
                raise RefusedError(f"volume {source}: folders too deep")
            yield _entry(path, DIRECTORY, status)
            for name in sorted(os.listdir(source)):  # noqa: PTH208
                yield from _walk(f"{source}/{name}", f"{path}/{name}", depth - 1)
        elif stat.S_ISLNK(status.st_mode):
            target = os.readlink(source).encode(errors="surrogateescape")  # noqa: PTH115
            yield _entry(path, SYMLINK, status, target)
        elif stat.S_ISREG(status.st_mode):
            fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(fd, "rb") as file:  # noqa: PTH123
                yield _file_entry(path, os.fstat(fd), file.read(MAX_FILE + 1))
    except OSError as error:
        raise RefusedError(f"volume {source} cannot be read: {error.strerror}") from error


def _file_entry(path: str, status: os.stat_result, content: bytes) -> FileEntry:
    if len(content) > MAX_FILE:
        raise ResourceExhaustedError(
            f"{path}: a file of more than {MAX_FILE >> 20} MiB is not sent"
        )
    return _entry(path, FILE, status, content)


def _entry(
    path: str, kind: FileEntryKind, status: os.stat_result, content: bytes = b""
) -> FileEntry:
    mode = stat.S_IMODE(status.st_mode) & 0o777
    return FileEntry(
        path=path, kind=kind, mode=mode, uid=status.st_uid, gid=status.st_gid, content=content
    )


def _parts(entry: FileEntry) -> Iterator[FileEntry]:
    content = entry.content
    if len(content) <= MESSAGE:
        yield entry
        return
    for start in range(0, len(content), MESSAGE):
        yield FileEntry(
            path=entry.path,
            kind=entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            content=content[start : start + MESSAGE],
            append=start > 0,
        )
