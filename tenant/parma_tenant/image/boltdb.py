"""A reader of bbolt databases, as much as containerd's metadata needs. Nothing is locked or written.

Source: go.etcd.io/bbolt v1.3, page.go, bucket.go, db.go (little-endian, as on every machine that Parma runs on).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from parma_tenant.image.errors import ImageError

_MAGIC: Final = 0xED0CDAED
_VERSION: Final = 2
_META: Final = struct.Struct("<IIIIQQQQQQ")
_PAGE: Final = struct.Struct("<QHHI")
_ELEMENT: Final = struct.Struct("<IIII")
_BRANCH_ELEMENT: Final = struct.Struct("<IIQ")
_BUCKET: Final = struct.Struct("<QQ")
_IS_BRANCH, _IS_LEAF, _IS_BUCKET = 1, 2, 1
_FNV_BASE, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_MAX_SIZE: Final = 1 << 30
_MAX_DEPTH: Final = 32


class Bolt:
    """A database, as it was at its last commit. Raises ImageError for a damaged one."""

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        try:
            with path.open("rb") as file:
                self._data = file.read(_MAX_SIZE)
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror}") from error
        metas = [meta for meta in (self._meta(0), self._second_meta()) if meta is not None]
        if not metas:
            raise ImageError(f"{path} is no bbolt database")
        _, self._page_size, self._root = max(metas)

    def _meta(self, at: int) -> tuple[int, int, int] | None:
        """Transaction, page size, root page; None for a half-written one."""
        start = at + _PAGE.size
        raw = self._data[start : start + _META.size]
        if len(raw) < _META.size:
            return None
        magic, version, size, _, root, _, _, _, txid, checksum = _META.unpack(raw)
        good = (magic, version, checksum) == (_MAGIC, _VERSION, _fnv(raw[:-8]))
        return (txid, size, root) if good and size >= 1024 else None

    def _second_meta(self) -> tuple[int, int, int] | None:
        found = (self._meta(size) for size in (4096, 8192, 16384, 65536))
        return next((meta for meta in found if meta is not None), None)

    def bucket(self, *names: bytes) -> dict[bytes, bytes | None] | None:
        """Keys and values of a nested bucket, None standing for buckets; None if it is not there."""
        items = list(self._page_items(self._root, 0))
        for name in names:
            value = next(
                (value for key, value, is_bucket in items if key == name and is_bucket), None
            )
            if value is None:
                return None
            items = list(self._bucket_items(value))
        return {key: None if is_bucket else value for key, value, is_bucket in items}

    def _bucket_items(self, value: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
        root, _ = self._unpack(_BUCKET, value, 0)
        if root:
            return self._page_items(root, 0)
        return self._items(value[_BUCKET.size :], 0)

    def _page_items(self, number: int, depth: int) -> Iterator[tuple[bytes, bytes, bool]]:
        at = number * self._page_size
        *_, overflow = self._unpack(_PAGE, self._data, at)
        return self._items(self._data[at : at + (1 + overflow) * self._page_size], depth)

    def _items(self, page: bytes, depth: int) -> Iterator[tuple[bytes, bytes, bool]]:
        if depth > _MAX_DEPTH:
            raise self._damaged()
        _, flags, count, _ = self._unpack(_PAGE, page, 0)
        if flags not in (_IS_LEAF, _IS_BRANCH):
            raise self._damaged()
        for number in range(count):
            at = _PAGE.size + 16 * number
            if flags == _IS_LEAF:
                kind, position, key_size, value_size = self._unpack(_ELEMENT, page, at)
                start = at + position
                end = start + key_size
                if end + value_size > len(page):
                    raise self._damaged()
                yield page[start:end], page[end : end + value_size], bool(kind & _IS_BUCKET)
            else:
                _, _, child = self._unpack(_BRANCH_ELEMENT, page, at)
                yield from self._page_items(child, depth + 1)

    def _unpack(self, form: struct.Struct, data: bytes, at: int) -> tuple[int, ...]:
        if at < 0 or at + form.size > len(data):
            raise self._damaged()
        return form.unpack_from(data, at)

    def _damaged(self) -> ImageError:
        return ImageError(
            f"{self._name} is damaged, or was written to while it was read: try again"
        )


def _fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    state = _FNV_BASE
    for byte in data:
        state = (state ^ byte) * _FNV_PRIME & 0xFFFFFFFFFFFFFFFF
    return state
