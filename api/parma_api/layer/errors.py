"""Why a layer has no image: one class for each name of the format's list of failures.

The names are the ones that the known answers use (docs: layer format, section 15), with E_COMPRESSION for what is
broken around the tar and E_DIGEST for content that is not what its digest says.
"""

from __future__ import annotations

import errno
from typing import ClassVar

from parma_api.status import Code, InternalError, InvalidArgumentError

MAX_SHOWN = 120


def shown(name: bytes) -> str:
    """A name out of a tar as one printable line, cut where it is long."""
    text = name[:MAX_SHOWN].decode("utf-8", "backslashreplace")
    quoted = text.encode("unicode_escape").decode("ascii")
    return f"'{quoted}'" + ("..." if len(name) > MAX_SHOWN else "")


class LayerError(InvalidArgumentError):
    """The layer cannot be converted; `name` is the failure's fixed name and begins the message."""

    name: ClassVar[str] = "E_LAYER"

    def __init__(self, why: str) -> None:
        super().__init__(f"{self.name}: {why}")


class TarHeaderError(LayerError):
    """A header, a PAX record, a sparse map or the end mark is malformed."""

    name = "E_TAR_HEADER"


class TarTruncatedError(LayerError):
    """The stream ends inside a header or inside data."""

    name = "E_TAR_TRUNCATED"


class NameTooLongError(LayerError):
    """A component of a path is longer than 255 bytes."""

    name = "E_NAME"


class NotDirectoryError(LayerError):
    """A parent is no directory; symbolic links are never followed."""

    name = "E_NOT_DIR"


class DirectoryByFileError(LayerError):
    """Something that is no directory would replace a directory."""

    name = "E_DIR_BY_FILE"


class FileByDirectoryError(LayerError):
    """A directory would replace something else."""

    name = "E_FILE_BY_DIR"


class OverwriteError(LayerError):
    """An entry over a file that has data already."""

    name = "E_OVERWRITE"


class LinkOrphanError(LayerError):
    """A hard link over a directory or over the only name of something."""

    name = "E_LINK_ORPHAN"


class LinkMissingError(LayerError):
    """What a hard link names is not in the layer."""

    name = "E_LINK_MISSING"


class LinkDirectoryError(LayerError):
    """A hard link names a directory."""

    name = "E_LINK_DIR"


class LinkMaximumError(LayerError):
    """More than 65000 links."""

    name = "E_LINK_MAX"


class AttributeSpaceError(LayerError):
    """An extended attribute fits neither the inode nor the block."""

    name = "E_XATTR_SPACE"


class FileTooBigError(LayerError):
    """A file beyond the format's limit."""

    name = "E_FILE_TOO_BIG"


class DiskFullError(LayerError):
    """The image, or what it takes to make it, would be larger than the format or the caller allows."""

    name = "E_DISK_FULL"
    code = Code.RESOURCE_EXHAUSTED


class CompressionError(LayerError):
    """What is around the tar is broken, cut off, or of a kind that is not known here."""

    name = "E_COMPRESSION"


class DigestError(LayerError):
    """The uncompressed tar is not the one that its diff id names."""

    name = "E_DIGEST"


class LayerReadError(InternalError):
    """The layer cannot be read: the fault is the machine's, not the layer's."""


class LayerWriteError(InternalError):
    """The image cannot be written; a full disk has code RESOURCE_EXHAUSTED."""


class LayerDiskFullError(LayerWriteError):
    """No room on the disk of the machine."""

    code = Code.RESOURCE_EXHAUSTED


_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def write_error(error: OSError, where: str) -> LayerWriteError:
    """What to raise for `error` while writing to `where`."""
    if error.errno in _NO_ROOM:
        return LayerDiskFullError(
            f"{where}: no room left ({error.strerror}): free some and try again"
        )
    return LayerWriteError(f"{where} cannot be written: {error.strerror}")
