"""File operations that cannot leave a directory, whatever path, link or race stands in the way.

Every path is resolved by openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS: containers write into the same
tree, so that a link found on the way is an attack, never a convenience.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOENT
from types import TracebackType
from typing import Self

from parma_api.status import InvalidArgumentError
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.linux.libc import SYS_OPENAT2, encode, syscall

# include/uapi/linux/openat2.h
_RESOLVE_NO_XDEV = 1
_RESOLVE_NO_MAGICLINKS = 2
_RESOLVE_NO_SYMLINKS = 4
_RESOLVE_BENEATH = 8
_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY

MAX_PATH = 1024
MAX_DEPTH = 32
_PART = re.compile(r"[^/\0]{1,255}")


def split(path: str) -> tuple[str, ...]:
    """The parts of a relative path in normal form. Raises InvalidArgumentError for every other text."""
    parts = tuple(path.split("/"))
    if len(path) > MAX_PATH or len(parts) > MAX_DEPTH:
        raise InvalidArgumentError(f"path is longer than {MAX_PATH} bytes or {MAX_DEPTH} parts")
    for part in parts:
        if not _PART.fullmatch(part) or part in (".", "..") or len(part.encode()) > 255:
            raise InvalidArgumentError(f"path {path!r} is not relative and in normal form")
    return parts


def openat2(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """A descriptor of `path` beneath `directory`. Raises KernelError (ELOOP: a link; EXDEV: outside)."""
    how = bytearray(struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, _RESOLVE))
    return syscall("openat2", SYS_OPENAT2, directory, encode(path), how, len(how), what=path)


class Beneath:
    """A directory, held open; every method's path is relative to it. A context manager."""

    def __init__(self, root: str) -> None:
        """Raises KernelError if there is no such directory, or it is a link."""
        with kernel_call("open", root):
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        *above, name = split(path)
        fd = openat2(self._fd, "/".join(above) or ".", _DIRECTORY)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
        """A descriptor of the file at `path`, which is no link."""
        split(path)
        return openat2(self._fd, path, flags | os.O_NOFOLLOW, mode)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make one directory; one that is there keeps its content and gets the mode."""
        with self._parent(path) as (parent, name):
            with _unless_it_exists("mkdir", path):
                os.mkdir(name, mode, dir_fd=parent)
            fd = openat2(parent, name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with kernel_call("chmod", path):
                    os.fchmod(fd, mode)
            finally:
                os.close(fd)

    def mkdir_new(self, path: str, mode: int = 0o755) -> None:
        """Make one directory that is not there yet. Raises KernelError (EEXIST)."""
        with self._parent(path) as (parent, name), kernel_call("mkdir", path):
            os.mkdir(name, mode, dir_fd=parent)

    def make_parents(self, path: str, mode: int = 0o755) -> None:
        """The directories above `path`."""
        parts = split(path)
        for depth in range(1, len(parts)):
            with (
                self._parent("/".join(parts[:depth])) as (parent, name),
                _unless_it_exists("mkdir", path),
            ):
                os.mkdir(name, mode, dir_fd=parent)

    def make_missing(self, path: str, mode: int) -> None:
        """The directory `path` and those above it, each that is missing, with a group that is inherited."""
        parts = split(path)
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            if not self.exists(part):
                self.mkdir_new(part, mode)
                fd = self.open(part, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    with kernel_call("chmod", part):
                        os.fchmod(fd, mode | os.fstat(fd).st_mode & stat.S_ISGID)
                finally:
                    os.close(fd)

    def write(self, path: str, content: bytes, mode: int, owner: tuple[int, int] = (0, 0)) -> None:
        """Put a whole file in place of what is at `path`, in one step: a new file is renamed over it."""
        with self._parent(path) as (parent, name):
            temporary = f".parma-{os.getpid()}-{name}"[:255]
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            fd = openat2(parent, temporary, flags, 0o600)
            try:
                with kernel_call("write", path):
                    _fill(fd, content, mode, owner)
                    os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)
                raise
            finally:
                os.close(fd)

    def overwrite(self, path: str, content: bytes) -> None:
        """Change the content of a regular file in place, where a bind mount of the file itself must see it."""
        fd = self.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            with kernel_call("write", path):
                _write_all(fd, content)
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        """Whether something, a link included, is at `path`."""
        try:
            with self._parent(path) as (parent, name):
                os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except KernelError as error:
            if error.number != ENOENT:
                raise
            return False
        return True

    def append(self, path: str, content: bytes) -> int:
        """Continue a regular file that is there; its new size."""
        fd = self.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            with kernel_call("write", path):
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise InvalidArgumentError(f"{path} is no regular file")
                _write_all(fd, content)
                return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def size(self, path: str) -> int:
        """Bytes of the file at `path`."""
        fd = self.open(path, os.O_PATH)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def symlink(self, path: str, target: str) -> None:
        """Put a link in place of what is at `path`; its target is text, resolved by whoever follows it."""
        with self._parent(path) as (parent, name), kernel_call("symlink", path):
            temporary = f".parma-{os.getpid()}-{name}"[:255]
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            os.symlink(target, temporary, dir_fd=parent)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def rename(self, old: str, new: str) -> None:
        """rename(2), both ends beneath the root."""
        with (
            self._parent(old) as (source, name),
            self._parent(new) as (target, other),
            kernel_call("rename", f"{old} to {new}"),
        ):
            os.rename(name, other, src_dir_fd=source, dst_dir_fd=target)

    def chown(self, path: str, owner: tuple[int, int]) -> None:
        """Owner and group of what is at `path`, of a link itself."""
        with self._parent(path) as (parent, name), kernel_call("chown", path):
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)

    def listing(self, path: str) -> dict[str, int]:
        """Names in the directory at `path` (empty: the root) and their modes; links are not followed."""
        fd = openat2(self._fd, path or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            return {
                name: os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                for name in os.listdir(fd)  # noqa: PTH208 (a descriptor)
            }
        finally:
            os.close(fd)

    def remove(self, path: str) -> None:
        """Remove what is at `path`: a file, a link, or a directory with all it holds."""
        with self._parent(path) as (parent, name), kernel_call("remove", path):
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                os.unlink(name, dir_fd=parent)
                return
        for inner in self.listing(path):
            self.remove(f"{path}/{inner}")
        with self._parent(path) as (parent, name), kernel_call("rmdir", path):
            os.rmdir(name, dir_fd=parent)


@contextmanager
def _unless_it_exists(call: str, what: str) -> Iterator[None]:
    with kernel_call(call, what), suppress(FileExistsError):
        yield


def _fill(fd: int, content: bytes, mode: int, owner: tuple[int, int]) -> None:
    _write_all(fd, content)
    os.fchown(fd, *owner)
    os.fchmod(fd, mode)  # after chown, which clears set-id bits


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
