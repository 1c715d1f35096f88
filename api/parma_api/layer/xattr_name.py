"""Names of extended attributes: ext4 stores an index for a known prefix, and the rest (fs/ext4/xattr.h)."""

from __future__ import annotations

from typing import NamedTuple

from parma_api.layer.errors import AttributeSpaceError, shown

MAX_SUFFIX = 255
_PREFIXES = (
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"system.richacl", 8),
    (b"system.", 7),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"", 0),
)
_PREFIX_OF = {index: prefix for prefix, index in _PREFIXES}


class Name(NamedTuple):
    """EXT4_XATTR_INDEX_* of the prefix, and what follows it."""

    prefix: int
    suffix: bytes

    @property
    def full(self) -> bytes:
        """The name as programs know it."""
        return _PREFIX_OF.get(self.prefix, b"") + self.suffix


def split_name(full: bytes) -> Name:
    """Index and suffix. The first prefix counts that fits. Raises AttributeSpaceError for a suffix that has no room."""
    for prefix, index in _PREFIXES:
        if full.startswith(prefix):
            suffix = full[len(prefix) :]
            if len(suffix) > MAX_SUFFIX:
                raise AttributeSpaceError(f"the name of the attribute {shown(full)} is too long")
            return Name(index, suffix)
    raise AssertionError("the last prefix is empty")
