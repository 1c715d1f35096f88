"""Blobs whose digest and size are checked while they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, Protocol, cast

from parma_tenant.image.documents import MAX_DOCUMENT, Descriptor
from parma_tenant.image.errors import ImageError


class BlobStore(Protocol):
    """Where blobs are; may be asked by several threads at once."""

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        """The blob's bytes, not yet checked. Raises ImageError, ImageMissingError, RegistryError."""


class Piece:
    """Part of a file, read by position, so that threads can share the descriptor."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._at = offset
        self._end = offset + size

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; all that is left for a negative one. Raises OSError."""
        left = self._end - self._at
        data = os.pread(self._fd, left if size < 0 else min(size, left), self._at)
        self._at += len(data)
        return data


class Checked:
    """A reader that fails at the end if the bytes are not what the descriptor says."""

    def __init__(self, reader: BinaryIO, descriptor: Descriptor) -> None:
        self._reader = reader
        self._descriptor = descriptor
        self._left = descriptor.size
        self._hash = hashlib.new(descriptor.digest.partition(":")[0])

    def read(self, size: int = -1) -> bytes:
        """As of any reader. Raises ImageError for a wrong size or digest, OSError."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._reader.read(wanted) if wanted else b""
        self._hash.update(data)
        self._left -= len(data)
        if wanted and not data:
            raise ImageError(
                f"{self._descriptor.digest} is cut off: {self._left} bytes are missing"
            )
        if self._left == 0:
            self._check()
        return data

    def _check(self) -> None:
        if self._reader.read(1):
            raise ImageError(f"{self._descriptor.digest} is longer than its descriptor says")
        found = f"{self._hash.name}:{self._hash.hexdigest()}"
        if found != self._descriptor.digest:
            raise ImageError(f"{self._descriptor.digest} has other content: its digest is {found}")


@contextmanager
def open_checked(store: BlobStore, descriptor: Descriptor) -> Iterator[BinaryIO]:
    """The blob, checked while it is read to its end."""
    with store.open(descriptor) as reader:
        yield cast("BinaryIO", Checked(reader, descriptor))


def read_document(store: BlobStore, descriptor: Descriptor) -> bytes:
    """A JSON blob as a whole. Raises ImageError and what the store raises."""
    if descriptor.size > MAX_DOCUMENT:
        raise ImageError(f"{descriptor.digest} is too large for a manifest or configuration")
    with open_checked(store, descriptor) as reader:
        pieces = []
        while data := reader.read(1 << 20):
            pieces.append(data)
        if not pieces:
            raise ImageError(f"{descriptor.digest} is empty")
        return b"".join(pieces)
