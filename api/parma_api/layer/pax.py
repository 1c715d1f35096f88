"""PAX records: `length key=value newline`, and what they say about the next entry. Pure.

Sources: POSIX pax, "pax Extended Header"; layer format, section 4.4.
"""

from __future__ import annotations

from collections.abc import Mapping

from parma_api.layer.errors import TarHeaderError
from parma_api.layer.scalar import Time, decimal, time

ATTRIBUTE = b"SCHILY.xattr."
SPARSE_MAP = b"GNU.sparse.map"
_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_TEXT_KEYS = frozenset((b"path", b"linkpath", b"uname", b"gname"))
_KEPT = frozenset(
    (
        *(b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime", b"atime", b"ctime"),
        *(b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.name", b"GNU.sparse.size"),
        *(b"GNU.sparse.realsize", b"GNU.sparse.numblocks", SPARSE_MAP),
    )
)
_MIN_RECORD = 5

Records = Mapping[bytes, bytes]


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """The records that have a meaning here, by key; of several with one key the last. Raises TarHeaderError."""
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(data):
        key, value, at = _record(data, at)
        if key in _SPARSE_PAIR:
            if key != _SPARSE_PAIR[len(sparse) % 2] or b"," in value:
                raise TarHeaderError("sparse offsets and lengths in PAX records do not alternate")
            sparse.append(value)
        elif key in _KEPT or key.startswith(ATTRIBUTE):
            records[key] = value
    if sparse:
        records[SPARSE_MAP] = b",".join(sparse)
    return records


def _record(data: bytes, at: int) -> tuple[bytes, bytes, int]:
    """Key and value of the record at `at`, and where the next one begins."""
    space = data.find(b" ", at)
    length = decimal(data[at:space]) if space >= 0 else None
    if length is None or not _MIN_RECORD <= length <= len(data) - at:
        raise TarHeaderError("a PAX record has no usable length")
    end = at + length
    if space + 1 >= end or data[end - 1] != 0x0A:
        raise TarHeaderError("a PAX record does not end where its length says")
    key, equals, value = data[space + 1 : end - 1].partition(b"=")
    checked = value if key in _TEXT_KEYS else key
    if not key or not equals or b"\0" in checked:
        raise TarHeaderError("a PAX record has no usable key or a NUL in a name")
    return key, value, end


def attributes(records: Records) -> dict[bytes, bytes]:
    """Extended attributes, names in full; a value may be empty."""
    return {
        key[len(ATTRIBUTE) :]: value for key, value in records.items() if key.startswith(ATTRIBUTE)
    }


def integer(records: Records, key: bytes, otherwise: int) -> int:
    """The record's number; `otherwise` if there is none or it is empty. Raises TarHeaderError."""
    text = records.get(key)
    if not text:
        return otherwise
    value = decimal(text)
    if value is None:
        raise TarHeaderError(f"the PAX record {key.decode()} is no number")
    return value


def moment(records: Records, key: bytes, otherwise: Time | None) -> Time | None:
    """The record's time; `otherwise` if there is none or it is empty. Raises TarHeaderError."""
    text = records.get(key)
    if not text:
        return otherwise
    value = time(text)
    if value is None:
        raise TarHeaderError(f"the PAX record {key.decode()} is no time")
    return value
