"""The layer's file system tree: what each tar entry does to it. Data goes straight to the image, names stay here.

The rules of creating, overwriting and linking are those of the layer format, sections 5, 6 and 8; the lower half of
the tree is a table of inode records and, for each directory, its children by name.
"""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Mapping

from parma_api.layer import errors, xattr
from parma_api.layer.errors import shown
from parma_api.layer.extents import MAX_FILE, map_run
from parma_api.layer.image import BlockImage
from parma_api.layer.inode import (
    EXTENTS,
    MAX_LINKS,
    NO_BODY,
    ROOT,
    Inode,
    InodeTable,
)
from parma_api.layer.timestamp import round_trip
from parma_api.layer.verity import BLOCK_SIZE

MAX_NAME = 255
_OPAQUE = (b"trusted.overlay.opaque", b"y")

Path = list[bytes]
"""Components beneath the root; none for the root itself."""


def clean(name: bytes) -> list[bytes]:
    """The components of a name: `.` and empty ones do not count, `..` takes one away and stops at the root."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part and part != b".":
            parts.append(part)
    return parts


class Tree:
    """Starts with the root and lost+found; grows with each call. All calls raise LayerError subclasses."""

    def __init__(self, image: BlockImage, table: InodeTable) -> None:
        self.table = table
        self._image = image
        self._children: dict[int, dict[bytes, int]] = {ROOT: {}}
        self._last_path: Path = []
        self._last = ROOT
        table.store(ROOT, Inode(mode=0o040755, links=2))
        self.create([b"lost+found"], Inode(mode=0o040700), {})

    def children(self, directory: int) -> Mapping[bytes, int]:
        """Names in a directory, with their inodes' numbers."""
        return self._children[directory]

    def make_parents(self, path: Path) -> None:
        """Creates the directories above `path` that are missing: each with its parent's mode, owner and times."""
        if self._directory(path[:-1]) is not None:
            return
        at = ROOT
        for depth, name in enumerate(path[:-1], 1):
            children = self._children.get(at)
            child = children.get(name) if children is not None else None
            if child is None:
                _check_name(name)
                if children is None:
                    raise _beneath_no_directory(path[:depth])
                if self.table.links(at) >= MAX_LINKS:
                    raise _too_many(path[:depth])
                child = self._add(at, name, self._implied(at))
            at = child

    def create(self, path: Path, wanted: Inode, attributes: Mapping[bytes, bytes]) -> bytes | None:
        """Makes `path` what `wanted` says, in the inode that has the name or in a new one.

        `wanted` gives mode, owner, times, size and body, and is completed here. The data of a file, or of a link whose
        target does not fit the body, must be appended to the image right after this, and behind it the result, if any:
        the leaf of the map of a large file.
        """
        parent, name, existing = self._place(path)
        self._check_type(existing, wanted, path)
        if existing is not None and (wanted.is_directory or self.table.links(existing) < 2):
            return self._reuse(existing, wanted, attributes, path)
        wanted.links = 2 if wanted.is_directory else 1
        if existing is None and wanted.is_directory and self.table.links(parent) >= MAX_LINKS:
            raise _too_many(path)
        leaf = self._complete(wanted, attributes, path)
        self._add(parent, name, wanted)
        if existing is not None:
            self.table.add_links(existing, -1)
        return leaf

    def link(self, target: Path, path: Path) -> None:
        """A further name for what `target` names now."""
        parent, name, existing = self._place(path)
        if existing is not None and (
            self.table.is_directory(existing) or self.table.links(existing) < 2
        ):
            raise errors.LinkOrphanError(f"a hard link cannot replace {_shown(path)}")
        number = self._find(target)
        if number is None:
            raise errors.LinkMissingError(
                f"{_shown(path)} is a hard link to {_shown(target)}, which is not in this layer so far"
            )
        if self.table.is_directory(number):
            raise errors.LinkDirectoryError(f"{_shown(path)} is a hard link to a directory")
        if number == existing:
            return
        if self.table.links(number) >= MAX_LINKS:
            raise errors.LinkMaximumError(f"{_shown(target)} has too many names")
        if existing is not None:
            self.table.add_links(existing, -1)
        self.table.add_links(number, 1)
        self._children[parent][name] = number

    def make_opaque(self, path: Path) -> None:
        """Marks a directory: an overlay shows nothing of what layers below have there."""
        number = self._find(path)
        if number is None:
            raise _beneath_no_directory(path)
        inode = self.table.load(number)
        if inode.flags & EXTENTS:
            raise errors.OverwriteError(f"{_shown(path)} has data and would be marked opaque")
        attributes: dict[bytes, bytes] = {}
        if inode.xattr_block:
            attributes.update(xattr.read_block(self._image.kept(inode.xattr_block)))
        if inode.xattr_area != xattr.NO_AREA:
            attributes.update(xattr.read_area(inode.xattr_area))
            attributes.pop(b"system.data", None)
        name, value = _OPAQUE
        self.create(path, _read_back(inode), {**attributes, name: value})

    def _reuse(
        self, number: int, wanted: Inode, attributes: Mapping[bytes, bytes], path: Path
    ) -> bytes | None:
        """The inode keeps its number, links, children, attribute block, and the attributes within it that stay."""
        old = self.table.load(number)
        if old.flags & EXTENTS:
            raise errors.OverwriteError(
                f"{_shown(path)} is there already and has data: an image cannot hold it twice"
            )
        wanted.links, wanted.blocks, wanted.xattr_block = old.links, old.blocks, old.xattr_block
        leaf = self._complete(wanted, {**xattr.read_area(old.xattr_area), **attributes}, path)
        self.table.store(number, wanted)
        return leaf

    def _add(self, parent: int, name: bytes, inode: Inode) -> int:
        """Enters a new inode; its number."""
        number = self.table.append(inode)
        if inode.is_directory:
            self.table.add_links(parent, 1)
            self._children[number] = {}
        self._children[parent][name] = number
        return number

    def _complete(
        self, inode: Inode, attributes: Mapping[bytes, bytes], path: Path
    ) -> bytes | None:
        """Attributes, and the map of the data that follows; result: the map's leaf."""
        data = data_size(inode)
        if data > MAX_FILE:
            raise errors.FileTooBigError(
                f"{_shown(path)} has more than {MAX_FILE} bytes, beyond which this format's block map is damaged"
            )
        if attributes or inode.xattr_block:
            self._place_attributes(inode, attributes)
        return map_data(inode, self._image, data) if data else None

    def _place_attributes(self, inode: Inode, attributes: Mapping[bytes, bytes]) -> None:
        """An inode that has an attribute block keeps it, even for no attributes at all."""
        inode.xattr_area, block = xattr.place(attributes)
        if inode.xattr_block:
            self._image.replace_kept(inode.xattr_block, block or xattr.EMPTY_BLOCK)
        elif block is not None:
            inode.xattr_block = self._image.keep(block)
            inode.blocks += 1

    def _implied(self, parent: int) -> Inode:
        inode = _read_back(self.table.load(parent))
        return Inode(
            mode=inode.mode,
            links=2,
            uid=inode.uid,
            gid=inode.gid,
            atime=inode.atime,
            ctime=inode.ctime,
            mtime=inode.mtime,
            crtime=inode.crtime,
        )

    def _place(self, path: Path) -> tuple[int, bytes, int | None]:
        """The directory that holds `path`, the name in it, and the inode that has the name; the root holds itself."""
        if not path:
            return ROOT, b"", ROOT
        name = path[-1]
        _check_name(name)
        parent = self._directory(path[:-1])
        if parent is None:
            raise _beneath_no_directory(path)
        return parent, name, self._children[parent].get(name)

    def _check_type(self, existing: int | None, wanted: Inode, path: Path) -> None:
        if existing is None or self.table.is_directory(existing) == wanted.is_directory:
            return
        if wanted.is_directory:
            raise errors.FileByDirectoryError(f"{_shown(path)} is there already and no directory")
        raise errors.DirectoryByFileError(f"{_shown(path)} is a directory and cannot be replaced")

    def _find(self, path: Path) -> int | None:
        parent = self._directory(path[:-1])
        if not path or parent is None:
            return parent
        return self._children[parent].get(path[-1])

    def _directory(self, path: Path) -> int | None:
        """A directory's number; None if there is none. Neighbours in a tar share it: the last one is remembered."""
        if path == self._last_path:
            return self._last
        at = ROOT
        for name in path:
            child = self._children[at].get(name)
            if child not in self._children:
                return None
            at = child
        self._last_path, self._last = path, at
        return at


def data_size(inode: Inode) -> int:
    """Bytes that lie in blocks: those of a file, and of a link's target that does not fit the body."""
    if stat.S_ISREG(inode.mode) or (stat.S_ISLNK(inode.mode) and inode.size >= len(NO_BODY)):
        return inode.size
    return 0


def map_data(inode: Inode, image: BlockImage, size: int) -> bytes | None:
    """Gives the inode `size` bytes (at least one) in a run of blocks from the image's cursor on.

    Result: the block that must follow the data, for a map that does not fit the inode. Raises DiskFullError,
    FileTooBigError.
    """
    blocks = -(-size // BLOCK_SIZE)
    image.require(blocks)
    inode.body, leaf = map_run(image.cursor, blocks)
    inode.flags |= EXTENTS
    inode.blocks += blocks + (leaf is not None)
    return leaf


def _read_back(inode: Inode) -> Inode:
    """The inode with its times as the reference reads them back, not yet anything else's."""
    return dataclasses.replace(
        inode,
        atime=round_trip(inode.atime),
        ctime=round_trip(inode.ctime),
        mtime=round_trip(inode.mtime),
        crtime=round_trip(inode.crtime),
        links=0,
        blocks=0,
        xattr_block=0,
        xattr_area=xattr.NO_AREA,
    )


def _check_name(name: bytes) -> None:
    if len(name) > MAX_NAME:
        raise errors.NameTooLongError(f"{shown(name)} is longer than {MAX_NAME} bytes")


def _beneath_no_directory(path: Path) -> errors.LayerError:
    return errors.NotDirectoryError(
        f"{_shown(path)} is beneath something that is no directory; links are not followed"
    )


def _too_many(path: Path) -> errors.LayerError:
    return errors.LinkMaximumError(f"{_shown(path)}: the directory above it has too many")


def _shown(path: Path) -> str:
    return shown(b"/".join(path)) if path else "the root directory"
