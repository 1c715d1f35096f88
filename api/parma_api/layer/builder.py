"""Tar entries in, a finished ext4 image out."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from parma_api.layer import timestamp
from parma_api.layer.directory import encode_directory
from parma_api.layer.groups import (
    BLOCK_SIZE,
    DATA_START,
    choose_layout,
    make_groups,
    metadata_blocks,
)
from parma_api.layer.image import BlockImage
from parma_api.layer.inode import NO_BODY, RECORD, ROOT, Inode, InodeTable
from parma_api.layer.tar import Entry, Kind, TarReader
from parma_api.layer.tree import Tree, clean, data_size, map_data

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_LOW32 = 0xFFFF_FFFF
_PERMISSIONS = 0o7777
_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FIFO: stat.S_IFIFO,
}
_TABLE_PIECE = 4096 * RECORD


class ImageBuilder:
    """Applies entries one by one; `finish` writes what an image has behind its content."""

    def __init__(self, image: BlockImage, max_inodes: int) -> None:
        self._image = image
        image.zero_blocks(DATA_START)
        self._table = InodeTable(max_inodes)
        self._tree = Tree(image, self._table)

    def add_all(self, tar: TarReader) -> None:
        """All entries of a tar. Raises LayerError subclasses."""
        for entry in tar:
            self.add(entry, tar)

    def add(self, entry: Entry, tar: TarReader) -> None:
        """One entry, whose data `tar` can give. Raises LayerError subclasses."""
        path = clean(entry.name)
        self._tree.make_parents(path)
        folder, slash, base = entry.name.rpartition(b"/")
        if base.startswith(_WHITEOUT):
            self._white_out(folder + slash, base)
        elif entry.kind is Kind.HARD_LINK:
            self._tree.link(clean(entry.link), path)
        else:
            wanted = _wanted(entry)
            leaf = self._tree.create(path, wanted, entry.xattrs or {})
            if entry.kind is Kind.FILE:
                self._append(tar.data(), leaf)
            elif data_size(wanted):
                self._append([memoryview(entry.link)], leaf)

    def finish(self) -> int:
        """Directories, inode table, bitmaps, superblock. Result: the image's size in blocks. Raises DiskFullError."""
        self._write_directories()
        image, records = self._image, self._table.records
        layout = choose_layout(image.cursor, len(self._table))
        image.require(layout.blocks - layout.table)
        for at in range(0, len(records), _TABLE_PIECE):
            image.write(bytes(records[at : at + _TABLE_PIECE]))
        image.zeros(layout.groups * layout.inodes_per_group * RECORD - len(records))
        groups = list(make_groups(layout, records))
        for group in groups:
            image.write(group.blocks)
            image.write(group.inodes)
        image.zero_blocks(layout.blocks - image.cursor)
        image.replace(0, metadata_blocks(layout, groups))
        image.finish()
        return layout.blocks

    def _white_out(self, folder: bytes, base: bytes) -> None:
        """A whiteout becomes a device 0:0 of the name that it hides; the entry's own fields do not count."""
        if base == _OPAQUE:
            self._tree.make_opaque(clean(folder))
        else:
            self._tree.create(clean(folder + base[len(_WHITEOUT) :]), Inode(mode=stat.S_IFCHR), {})

    def _append(self, pieces: Iterable[memoryview | int], leaf: bytes | None) -> None:
        """A run of blocks, and the leaf of its map."""
        for piece in pieces:
            if isinstance(piece, int):
                self._image.zeros(piece)
            else:
                self._image.write(piece)
        self._image.end_run()
        if leaf is not None:
            self._image.write(leaf)

    def _write_directories(self) -> None:
        """All directories, a parent before its children, children by inode number; they can nest very deep."""
        waiting = [(ROOT, ROOT)]
        while waiting:
            number, parent = waiting.pop()
            children = self._tree.children(number)
            self._write_directory(number, parent)
            inside = {child for child in children.values() if self._table.is_directory(child)}
            waiting += ((child, number) for child in sorted(inside, reverse=True))

    def _write_directory(self, number: int, parent: int) -> None:
        children = self._tree.children(number)
        blocks = list(encode_directory(number, parent, children, self._table.mode))
        inode = self._table.load(number)
        inode.size = len(blocks) * BLOCK_SIZE
        leaf = map_data(inode, self._image, inode.size)
        self._table.store(number, inode)
        self._append(map(memoryview, blocks), leaf)


def _wanted(entry: Entry) -> Inode:
    """The inode that an entry asks for."""
    mtime = timestamp.encode(entry.mtime)
    inode = Inode(
        mode=_TYPES[entry.kind] | entry.mode & _PERMISSIONS,
        uid=entry.uid & _LOW32,
        gid=entry.gid & _LOW32,
        atime=timestamp.encode(entry.atime),
        ctime=timestamp.encode(entry.ctime),
        mtime=mtime,
        crtime=mtime,
    )
    match entry.kind:
        case Kind.FILE:
            inode.size = entry.size
        case Kind.SYMLINK:
            inode.mode |= 0o777
            inode.size = len(entry.link)
            if not data_size(inode):
                inode.body = entry.link.ljust(len(NO_BODY), b"\0")
        case Kind.CHARACTER | Kind.BLOCK:
            inode.body = _device(entry.major, entry.minor).ljust(len(NO_BODY), b"\0")
        case _:
            pass
    return inode


def _device(major: int, minor: int) -> bytes:
    """The new encoding of device numbers (include/linux/kdev_t.h), of which the old one's field stays 0."""
    minor &= _LOW32
    number = minor & 0xFF | major << 8 | (minor & 0xFFFFFF00) << 12
    return bytes(4) + (number & _LOW32).to_bytes(4, "little")
