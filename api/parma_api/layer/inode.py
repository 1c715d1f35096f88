"""Inode records of 256 bytes, kept in memory as they will lie on disk: a layer can have millions of them.

Source: fs/ext4/ext4.h (struct ext4_inode); layer format, section 12.3. Entry k of the table is inode k + 1.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass

from parma_api.layer.errors import DiskFullError
from parma_api.layer.extents import BODY_SIZE
from parma_api.layer.xattr import NO_AREA

RECORD = 256
ROOT = 2
FIRST = 11
"""lost+found, the first ordinary inode."""
MAX_LINKS = 65000

HUGE_FILE = 0x40000
"""EXT4_HUGE_FILE_FL: the block count is in blocks, not sectors."""
EXTENTS = 0x80000
"""EXT4_EXTENTS_FL"""
NO_BODY = bytes(BODY_SIZE)

_FIELDS = struct.Struct("<HHIIII4xHHII4x60s4xII8xHH4xHxxIIIII104s")
_LINKS = struct.Struct("<H")
_LINKS_AT = 26
_EXTRA_SIZE = 24
_LOW16 = 0xFFFF
_LOW32 = 0xFFFF_FFFF


@dataclass(slots=True)
class Inode:
    """One record, taken apart. Times are encoded (`timestamp.encode`), blocks are of 4096 bytes."""

    mode: int
    uid: int = 0
    gid: int = 0
    atime: int = 0
    ctime: int = 0
    mtime: int = 0
    crtime: int = 0
    size: int = 0
    links: int = 0
    blocks: int = 0
    flags: int = HUGE_FILE
    body: bytes = NO_BODY
    xattr_block: int = 0
    xattr_area: bytes = NO_AREA

    @property
    def is_directory(self) -> bool:
        """Whether the type is directory."""
        return stat.S_ISDIR(self.mode)

    def pack(self) -> bytes:
        """The 256 bytes."""
        return _FIELDS.pack(
            self.mode,
            self.uid & _LOW16,
            self.size & _LOW32,
            self.atime & _LOW32,
            self.ctime & _LOW32,
            self.mtime & _LOW32,
            self.gid & _LOW16,
            self.links,
            self.blocks,
            self.flags,
            self.body,
            self.xattr_block,
            self.size >> 32,
            self.uid >> 16,
            self.gid >> 16,
            _EXTRA_SIZE,
            self.ctime >> 32,
            self.mtime >> 32,
            self.atime >> 32,
            self.crtime & _LOW32,
            self.crtime >> 32,
            self.xattr_area,
        )


def unpack(record: bytes | bytearray) -> Inode:
    """What `Inode.pack` packed."""
    (mode, uid, size, atime, ctime, mtime, gid, links, blocks, flags, body, xattr_block, *rest) = (
        _FIELDS.unpack(record)
    )
    size_hi, uid_hi, gid_hi, _extra, ctime_hi, mtime_hi, atime_hi, crtime, crtime_hi, area = rest
    return Inode(
        mode=mode,
        uid=uid | uid_hi << 16,
        gid=gid | gid_hi << 16,
        atime=atime | atime_hi << 32,
        ctime=ctime | ctime_hi << 32,
        mtime=mtime | mtime_hi << 32,
        crtime=crtime | crtime_hi << 32,
        size=size | size_hi << 32,
        links=links,
        blocks=blocks,
        flags=flags,
        body=body,
        xattr_block=xattr_block,
        xattr_area=area,
    )


class InodeTable:
    """All inodes by number; those that do not exist are zero bytes."""

    def __init__(self, max_inodes: int) -> None:
        self._max = max_inodes
        self.records = bytearray((FIRST - 1) * RECORD)

    def __len__(self) -> int:
        """The highest number in use."""
        return len(self.records) // RECORD

    def append(self, inode: Inode) -> int:
        """Result: the number of the new inode. Raises DiskFullError."""
        if len(self) >= self._max:
            raise DiskFullError(f"the layer has more than {self._max} files")
        self.records += inode.pack()
        return len(self)

    def store(self, number: int, inode: Inode) -> None:
        """Replaces a record."""
        at = (number - 1) * RECORD
        self.records[at : at + RECORD] = inode.pack()

    def load(self, number: int) -> Inode:
        """A copy of a record."""
        at = (number - 1) * RECORD
        return unpack(self.records[at : at + RECORD])

    def mode(self, number: int) -> int:
        """Type and permission bits."""
        at = (number - 1) * RECORD
        return self.records[at] | self.records[at + 1] << 8

    def is_directory(self, number: int) -> bool:
        """Whether the type is directory."""
        return self.records[(number - 1) * RECORD + 1] & 0xF0 == stat.S_IFDIR >> 8

    def links(self, number: int) -> int:
        """The link count."""
        count: int = _LINKS.unpack_from(self.records, (number - 1) * RECORD + _LINKS_AT)[0]
        return count

    def add_links(self, number: int, change: int) -> None:
        """Raises or lowers the link count."""
        at = (number - 1) * RECORD + _LINKS_AT
        _LINKS.pack_into(self.records, at, self.links(number) + change)
