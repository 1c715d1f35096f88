"""Extended attributes of an inode and their two areas (section 8). Pure."""

from __future__ import annotations

import struct

from parma_api.layer.errors import LayerError

Pairs = list[tuple[bytes, bytes]]
_PREFIXES = (
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"system.richacl", 8),
    (b"system.", 7),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
)
_MAGIC = 0xEA020000
_INODE_ROOM, _BLOCK_ROOM = 96, 4060
_MASK = 0xFFFFFFFF
_INSERTION_LIMIT = 12


def split(name: bytes) -> tuple[int, bytes]:
    """(index, suffix) of a full name."""
    for prefix, index in _PREFIXES:
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    return 0, name


def _up(size: int) -> int:
    return (size + 3) & ~3


def place(attributes: dict[bytes, bytes]) -> tuple[Pairs, Pairs]:
    """(in the inode, in the block), in placement order. Raises LayerError."""
    inode: Pairs = []
    block: Pairs = []
    left = [_INODE_ROOM, _BLOCK_ROOM]
    for name, value in sorted(attributes.items()):
        suffix = split(name)[1]
        if len(suffix) > 255:
            raise LayerError("E_XATTR_SPACE", "an attribute's name is too long")
        cost = 16 + _up(len(suffix)) + _up(len(value))
        for area, pairs in enumerate((inode, block)):
            if cost <= left[area]:
                left[area] -= cost
                pairs.append((name, value))
                break
        else:
            raise LayerError("E_XATTR_SPACE", "an attribute fits neither inode nor block")
    return inode, block


def _before(a: bytes, b: bytes) -> bool:
    (index_a, suffix_a), (index_b, suffix_b) = split(a), split(b)
    return index_a < index_b or len(suffix_a) < len(suffix_b) or suffix_a < suffix_b


def block_order(pairs: Pairs) -> Pairs:
    """The block's order (section 8.6). Raises LayerError for 13 or more: appendix A is not written yet."""
    if len(pairs) > _INSERTION_LIMIT:
        raise LayerError("E_XATTR_SPACE", "more than 12 attributes in a block are not supported")
    ordered = list(pairs)
    for start in range(1, len(ordered)):
        i = start
        while i > 0 and _before(ordered[i][0], ordered[i - 1][0]):
            ordered[i - 1], ordered[i] = ordered[i], ordered[i - 1]
            i -= 1
    return ordered


def read_back(pairs: Pairs) -> dict[bytes, bytes]:
    """What reading an area gives: it stops at the first empty suffix (section 8.5.1)."""
    found: dict[bytes, bytes] = {}
    for name, value in pairs:
        if not split(name)[1]:
            break
        found[name] = value
    return found


def _hash(suffix: bytes, value: bytes) -> int:
    h = 0
    for byte in suffix:
        h = ((h << 5) ^ (h >> 27) ^ byte) & _MASK
    padded = value + bytes(-len(value) % 4)
    for (word,) in struct.iter_unpack("<I", padded):
        h = ((h << 16) ^ (h >> 16) ^ word) & _MASK
    return h


def _encode(pairs: Pairs, area: bytearray, at: int, base: int) -> None:
    """Entries from `at`, values from the end of `area`; offsets count from `base`."""
    end = len(area)
    for name, value in pairs:
        index, suffix = split(name)
        end -= _up(len(value))
        struct.pack_into(
            "<BBHIII", area, at, len(suffix), index, end - base, 0, len(value), _hash(suffix, value)
        )
        area[at + 16 : at + 16 + len(suffix)] = suffix
        area[end : end + len(value)] = value
        at += 16 + _up(len(suffix))


def inode_area(pairs: Pairs) -> bytes:
    """The 104 bytes behind an inode's fields."""
    area = bytearray(104)
    if pairs:
        struct.pack_into("<I", area, 0, _MAGIC)
        _encode(pairs, area, 4, 4)
    return bytes(area)


def block(pairs: Pairs) -> bytes:
    """An attribute block of 4096 bytes."""
    area = bytearray(4096)
    struct.pack_into("<III", area, 0, _MAGIC, 1, 1)
    _encode(pairs, area, 32, 0)
    return bytes(area)
