"""Directories, inode table, bitmaps and superblock: what finishes an image (sections 10 to 12)."""

from __future__ import annotations

import struct

from parma_api.layer import attributes as xattr
from parma_api.layer.errors import LayerError
from parma_api.layer.tree import BLOCK, MAX_BLOCKS, Inode, Tree

_TYPES = {0o100: 1, 0o40: 2, 0o20: 3, 0o60: 4, 0o10: 5, 0o120: 7}
_GROUP = 32768


def groups(table: int, inodes: int) -> tuple[int, int]:
    """(group count, inodes per group) for an inode table at block `table` (section 11)."""
    best = (1 << 62, 0)
    for per_group in range(16, 32769, 16):
        content = _GROUP - per_group // 16 - 2
        need = (inodes - 1) // per_group * content + 1
        count = -(-max(table, need) // content)
        best = min(best, (count, per_group))
    return best


def _directory(node: Inode, parent: Inode) -> bytes:
    rows = sorted((child.number, name, child) for name, child in node.children.items())
    entries = [(node.number, b".", 2), (parent.number, b"..", 2)]
    entries += [(number, name, _TYPES[child.mode >> 9 & 0o170]) for number, name, child in rows]
    out = bytearray()
    left = BLOCK
    for number, name, kind in entries:
        size = (8 + len(name) + 3) & ~3
        if left < size + 12:
            out += struct.pack("<IHBB", 0, left, 0, 0) + bytes(left - 8)
            left = BLOCK
        out += (
            struct.pack("<IHBB", number, size, len(name), kind) + name + bytes(size - 8 - len(name))
        )
        left -= size
    out += struct.pack("<IHBB", 0, left, 0, 0) + bytes(left - 8)
    return bytes(out)


def _write_directories(tree: Tree) -> None:
    stack = [(tree.root, tree.root)]
    while stack:
        node, parent = stack.pop()
        tree.write_directory(node, _directory(node, parent))
        below = {child.number: child for child in node.children.values() if child.is_directory}
        stack += [(below[number], node) for number in sorted(below, reverse=True)]


def _record(node: Inode) -> bytes:
    atime, ctime, mtime, crtime = node.times
    low = 0xFFFFFFFF
    return struct.pack(
        "<HHIIIIIHHIII60sIIIQHHIHHIIIII",
        *(node.mode, node.uid & 0xFFFF, node.size & low, atime & low, ctime & low, mtime & low, 0),
        *(
            node.gid & 0xFFFF,
            node.links,
            node.blocks,
            node.flags,
            0,
            node.body,
            0,
            node.xattr_block,
        ),
        *(node.size >> 32, 0, node.uid >> 16, node.gid >> 16, 0, 24, 0),
        *(ctime >> 32, mtime >> 32, atime >> 32, crtime & low, crtime >> 32),
    ) + xattr.inode_area(node.inline)


def finish(tree: Tree) -> int:
    """Writes all that follows the content; the image's size in blocks. Raises LayerError."""
    _write_directories(tree)
    table, highest = tree.cursor, tree.last
    count, per_group = groups(table, highest)
    bitmaps = table + count * per_group // 16
    behind = bitmaps + 2 * count
    blocks = max(behind, (count - 1) * _GROUP + 1)
    if blocks > MAX_BLOCKS:
        raise LayerError("E_DISK_FULL", "the image would be larger than 128 GiB")
    out = tree.out
    out.truncate(blocks * BLOCK)
    for node in tree.inodes:
        out.seek(table * BLOCK + 256 * (node.number - 1))
        out.write(_record(node))
    descriptors, free_blocks, free_inodes = bytearray(), 0, 0
    for group in range(count):
        used = _block_bitmap(group, count, behind, blocks)
        present = _inode_bitmap(tree, group, per_group)
        out.seek((bitmaps + 2 * group) * BLOCK)
        out.write(used + present)
        spare = _GROUP - int.from_bytes(used, "little").bit_count()
        unused = per_group - int.from_bytes(present, "little").bit_count()
        first = group * per_group
        directories = sum(
            n.is_directory and first < n.number <= first + per_group for n in tree.inodes
        )
        at = bitmaps + 2 * group
        descriptors += struct.pack(
            "<IIIHHH14x", at, at + 1, table + first // 16, spare, unused, directories
        )
        free_blocks, free_inodes = free_blocks + spare, free_inodes + unused
    out.seek(0)
    out.write(
        bytes(1024) + _superblock(count * per_group, blocks, free_blocks, free_inodes, per_group)
    )
    out.seek(BLOCK)
    out.write(descriptors)
    return blocks


def _block_bitmap(group: int, count: int, behind: int, blocks: int) -> bytes:
    start = group * _GROUP
    bits = (1 << max(0, min(_GROUP, behind - start))) - 1
    if group == 0:
        used = -(-count // 128)
        for block in range(1 + used, 9):
            bits &= ~(1 << block)
    if group == count - 1 and blocks % _GROUP:
        tail = blocks % _GROUP
        bits |= ((1 << _GROUP) - 1) >> tail << tail
    return bits.to_bytes(BLOCK, "little")


def _inode_bitmap(tree: Tree, group: int, per_group: int) -> bytes:
    first = group * per_group
    bits = 0x3FF if group == 0 else 0
    used = min(max(tree.last - first, 0), per_group)
    bits |= (1 << used) - 1
    return bits.to_bytes(BLOCK, "little")


def _superblock(
    inodes: int, blocks: int, free_blocks: int, free_inodes: int, per_group: int
) -> bytes:
    block = bytearray(1024)
    values = (
        *((0, "I", inodes), (4, "I", blocks), (12, "I", free_blocks), (16, "I", free_inodes)),
        *(
            (0x18, "II", 2, 2),
            (0x20, "III", _GROUP, _GROUP, per_group),
            (0x38, "HHH", 0xEF53, 1, 1),
        ),
        *((0x4C, "I", 1), (0x54, "IH", 11, 256), (0x5C, "III", 0x208, 0x242, 0x104A)),
        *((0x15C, "HH", 24, 24), (0x174, "B", 31), (0x268, "I", 11)),
    )
    for offset, form, *fields in values:
        struct.pack_into("<" + str(form), block, int(str(offset)), *fields)
    return bytes(block)
