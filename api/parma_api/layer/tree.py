"""The file system in memory and on its way to the image (sections 5 to 9)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from parma_api.layer import attributes as xattr
from parma_api.layer.errors import LayerError
from parma_api.layer.header import Time

BLOCK = 4096
MAX_BLOCKS = 1 << 25
MAX_FILE = 1 << 37
DESCRIPTOR_BLOCKS = 8
HUGE_FILE, EXTENTS = 0x40000, 0x80000
LINK_MAX = 65000
S_DIR, S_LINK, S_CHAR, S_BLOCK, S_FIFO, S_FILE = (
    0o40000,
    0o120000,
    0o20000,
    0o60000,
    0o10000,
    0o100000,
)
_FORMAT = 0o170000
Times = tuple[int, int, int, int]
"""Encoded atime, ctime, mtime, crtime."""
Path = tuple[bytes, ...]


def encode_time(time: Time | None) -> int:
    """The 64-bit form of a time (section 7.1)."""
    if time is None or time == (-62135596800, 0):
        return 0
    seconds, nanoseconds = time
    if seconds < -(1 << 31):
        return 0x80000000
    if seconds > 0x37FFFFFFF:
        return 0x37FFFFFFF
    return (seconds & ((1 << 64) - 1)) | (nanoseconds << 34) & ((1 << 64) - 1)


def round_trip(encoded: int) -> int:
    """A time decoded and encoded again (section 7.2)."""
    if encoded == 0:
        return 0
    seconds, nanoseconds = encoded & 0x3FFFFFFFF, encoded >> 34
    if 0x7FFFFFFF < seconds < 0x100000000:
        seconds -= 1 << 32
    if nanoseconds >= 1_000_000_000:
        seconds, nanoseconds = seconds + 1, nanoseconds - 1_000_000_000
    return encode_time((seconds, nanoseconds))


@dataclass(slots=True, eq=False)
class Inode:
    """One inode; several names may share it."""

    number: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    times: Times = (0, 0, 0, 0)
    links: int = 0
    size: int = 0
    flags: int = HUGE_FILE
    xattr_block: int = 0
    blocks: int = 0
    body: bytes = b""
    inline: xattr.Pairs = field(default_factory=list)
    outside: xattr.Pairs = field(default_factory=list)
    children: dict[bytes, Inode] = field(default_factory=dict)
    device: tuple[int, int] = (0, 0)

    @property
    def is_directory(self) -> bool:
        return self.mode & _FORMAT == S_DIR


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a new or reused inode gets; `mode` with type bits."""

    mode: int
    uid: int = 0
    gid: int = 0
    times: Times = (0, 0, 0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)


def clean(name: bytes) -> Path:
    """Components of a name, relative to the root (section 5)."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)


class Tree:
    """Builds inodes and writes content behind the leading metadata of `out`."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.cursor = 1 + DESCRIPTOR_BLOCKS
        self.root = Inode(2, S_DIR | 0o755, links=2)
        self.inodes: list[Inode] = [self.root]
        self.last = 10
        self.create((b"lost+found",), Attributes(S_DIR | 0o700))

    def implied_parents(self, path: Path) -> None:
        """Directories above `path` that are missing, with their parent's attributes."""
        here = self.root
        for depth in range(1, len(path)):
            part = path[depth - 1]
            child = here.children.get(part)
            if child is None:
                times = tuple(round_trip(time) for time in here.times)
                attributes = Attributes(here.mode, here.uid, here.gid, times)  # type: ignore[arg-type]
                if not here.is_directory:
                    raise LayerError("E_NOT_DIR", "a parent is no directory")
                child = self._put(here, part, None, attributes)
            here = child

    def _parent(self, path: Path) -> Inode:
        here = self.root
        for part in path[:-1]:
            child = here.children.get(part) if here.is_directory else None
            if child is None:
                raise LayerError("E_NOT_DIR", "a parent is no directory")
            here = child
        if not here.is_directory:
            raise LayerError("E_NOT_DIR", "a parent is no directory")
        return here

    def find(self, path: Path) -> Inode | None:
        """The inode of a path, links not followed."""
        here: Inode | None = self.root
        for part in path:
            here = here.children.get(part) if here is not None and here.is_directory else None
        return here

    def create(
        self, path: Path, attributes: Attributes, data: Iterable[tuple[int, bytes]] = ()
    ) -> Inode:
        """Section 6.1. Raises LayerError."""
        if not path:
            return self._put(self.root, b"", self.root, attributes, data)
        if len(path[-1]) > 255:
            raise LayerError("E_NAME", "a name is longer than 255 bytes")
        parent = self._parent(path)
        return self._put(parent, path[-1], parent.children.get(path[-1]), attributes, data)

    def _put(
        self,
        parent: Inode,
        name: bytes,
        old: Inode | None,
        new: Attributes,
        data: Iterable[tuple[int, bytes]] = (),
    ) -> Inode:
        if len(name) > 255:
            raise LayerError("E_NAME", "a name is longer than 255 bytes")
        directory = new.mode & _FORMAT == S_DIR
        if old is not None and old.is_directory and not directory:
            raise LayerError("E_DIR_BY_FILE", "a file would replace a directory")
        if old is not None and not old.is_directory and directory:
            raise LayerError("E_FILE_BY_DIR", "a directory would replace a file")
        if old is None and directory and parent.links >= LINK_MAX:
            raise LayerError("E_LINK_MAX", "a directory has too many subdirectories")
        reused = old if old is not None and (directory or old.links == 1) else None
        if reused is not None and reused.flags & EXTENTS:
            raise LayerError("E_OVERWRITE", "an entry would replace a file that has data")
        node = reused or Inode(self.last + 1, links=1 if directory else 0)
        self._fill(node, new, reused=reused is not None)
        if reused is None:
            self.last += 1
            self.inodes.append(node)
            if old is not None:
                old.links -= 1
            parent.children[name] = node
            node.links += 1
            parent.links += directory
        if new.mode & _FORMAT == S_FILE and new.size:
            self._write_data(node, new.size, data)
        return node

    def _fill(self, node: Inode, new: Attributes, *, reused: bool) -> None:
        kind = new.mode & _FORMAT
        if kind == S_FILE and new.size > MAX_FILE:
            raise LayerError("E_FILE_TOO_BIG", "a file is larger than 128 GiB")
        merged = {**xattr.read_back(node.inline), **new.xattrs} if reused else new.xattrs
        inline, outside = xattr.place(merged)
        outside = xattr.block_order(outside)
        node.mode = new.mode | (0o777 if kind == S_LINK else 0)
        node.uid, node.gid, node.times, node.device = new.uid, new.gid, new.times, new.device
        node.flags, node.body = HUGE_FILE, b""
        node.inline, node.outside = inline, outside
        if kind == S_LINK and len(new.target) <= 59:
            node.body = new.target
        if outside and not node.xattr_block:
            node.xattr_block = self.cursor
            self._take(1)
            node.blocks += 1
        if node.xattr_block:
            self._write_at(node.xattr_block, xattr.block(outside))
        node.size = new.size if kind == S_FILE else len(new.target) if kind == S_LINK else 0
        if kind in (S_CHAR, S_BLOCK):
            major, minor = new.device
            number = (minor & 0xFF) | (major << 8) | ((minor & 0xFFFFFF00) << 12)
            node.body = struct.pack("<II", 0, number & 0xFFFFFFFF)
        if kind == S_LINK and len(new.target) > 59:
            self._write_data(node, len(new.target), [(0, new.target)])

    def link(self, path: Path, target_path: Path) -> None:
        """Section 6.3. Raises LayerError."""
        if path and len(path[-1]) > 255:
            raise LayerError("E_NAME", "a name is longer than 255 bytes")
        parent = self._parent(path) if path else self.root
        old = parent.children.get(path[-1]) if path else self.root
        if old is not None and (old.is_directory or old.links < 2):
            raise LayerError("E_LINK_ORPHAN", "a hard link would replace a file or directory")
        target = self.find(target_path)
        if target is None:
            raise LayerError("E_LINK_MISSING", "a hard link's target does not exist")
        if target.is_directory:
            raise LayerError("E_LINK_DIR", "a hard link's target is a directory")
        if old is not target and target.links >= LINK_MAX:
            raise LayerError("E_LINK_MAX", "a file has too many names")
        if old is not None:
            old.links -= 1
        target.links += 1
        parent.children[path[-1]] = target

    def opaque(self, path: Path) -> None:
        """Marks a directory as opaque (section 8.5). Raises LayerError."""
        node = self.find(path)
        if node is None:
            raise LayerError("E_NOT_DIR", "an opaque mark without a directory")
        if node.flags & EXTENTS:
            raise LayerError("E_OVERWRITE", "an opaque mark on a file that has data")
        found = xattr.read_back(node.outside) | xattr.read_back(node.inline)
        if node.inline:
            found.pop(b"system.data", None)
        found[b"trusted.overlay.opaque"] = b"y"
        times = tuple(round_trip(time) for time in node.times)
        target = node.body if node.mode & _FORMAT == S_LINK else b""
        again = Attributes(node.mode, node.uid, node.gid, times, found, 0, target, node.device)  # type: ignore[arg-type]
        self.create(path, again)

    def _take(self, blocks: int) -> int:
        first = self.cursor
        self.cursor += blocks
        if self.cursor > MAX_BLOCKS:
            raise LayerError("E_DISK_FULL", "the image would be larger than 128 GiB")
        return first

    def _write_at(self, block: int, data: bytes) -> None:
        self.out.seek(block * BLOCK)
        self.out.write(data)

    def write_directory(self, node: Inode, data: bytes) -> None:
        """Writes a directory's blocks."""
        node.size = len(data)
        self._write_data(node, len(data), [(0, data)])

    def _write_data(self, node: Inode, size: int, data: Iterable[tuple[int, bytes]]) -> None:
        count = -(-size // BLOCK)
        extents = -(-count // 32768)
        if extents > 339:
            raise LayerError(
                "E_FILE_TOO_BIG", "a file of 42 GiB or more has no sound extent tree in this format"
            )
        first = self._take(count)
        for offset, part in data:
            self.out.seek(first * BLOCK + offset)
            self.out.write(part)
        node.flags = HUGE_FILE | EXTENTS
        node.blocks += count
        records = b"".join(
            struct.pack("<IHHI", 32768 * i, min(count - 32768 * i, 32768), 0, first + 32768 * i)
            for i in range(extents)
        )
        if extents <= 4:
            node.body = struct.pack("<HHHHI", 0xF30A, extents, 4, 0, 0) + records
            return
        leaf = self._take(1)
        node.blocks += 1
        self._write_at(leaf, struct.pack("<HHHHI", 0xF30A, extents, 340, 0, 0) + records)
        node.body = struct.pack("<HHHHI", 0xF30A, 1, 4, 1, 0) + struct.pack("<IIHH", 0, leaf, 0, 0)
