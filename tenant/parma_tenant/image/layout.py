"""OCI image layouts, as a folder or as a tar (OCI image-spec 1.1, image-layout.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

from parma_tenant.image.blob import Piece
from parma_tenant.image.documents import MAX_DOCUMENT, Descriptor, parse_index
from parma_tenant.image.errors import ImageError, ImageMissingError
from parma_tenant.image.image import Image, load_image
from parma_tenant.image.reference import Reference, parse_reference
from parma_tenant.image.tarindex import Member, index

_FULL_NAME: Final = "io.containerd.image.name"
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_MAX_LINKS: Final = 8


class Files(Protocol):
    """Named files: a folder's or an archive's."""

    name: str

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Raises ImageMissingError, ImageError."""

    def has(self, path: str) -> bool:
        """Whether there is a file of that name."""


class ArchiveFiles:
    """The members of a tar."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror}") from error
        try:
            self._members = self._indexed()
        except BaseException:
            os.close(self._fd)
            raise

    def _indexed(self) -> dict[str, Member]:
        try:
            return _index(self._fd)
        except OSError as error:
            raise ImageError(f"{self.name} cannot be read: {error.strerror}") from error
        except ImageError as error:
            raise ImageError(f"{self.name}: {error.message}") from error

    def close(self) -> None:
        """The archive is not read again."""
        os.close(self._fd)

    def has(self, path: str) -> bool:
        """As in Files."""
        return path in self._members

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """As in Files."""
        member = self._members.get(path)
        for _ in range(_MAX_LINKS):
            if member is None or member.link is None:
                break
            member = self._members.get(member.link)
        if member is None or member.link is not None:
            raise ImageMissingError(f"{self.name} has no {path}")
        yield cast("BinaryIO", Piece(self._fd, member.offset, member.size))


def _index(fd: int) -> dict[str, Member]:
    if os.pread(fd, 4, 0).startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        raise ImageError("it is compressed as a whole: unpack it first (gunzip, unzstd)")
    return index(fd)


class FolderFiles:
    """The files beneath a folder; links out of it are not followed."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder.resolve()

    def _path(self, path: str) -> Path:
        found = (self._folder / path).resolve()
        if not found.is_relative_to(self._folder):
            raise ImageError(f"{self.name}: {path} leads out of the folder")
        return found

    def has(self, path: str) -> bool:
        """As in Files."""
        return self._path(path).is_file()

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """As in Files."""
        found = self._path(path)
        if not found.is_file():
            raise ImageMissingError(f"{self.name} has no {path}")
        try:
            file = found.open("rb")
        except OSError as error:
            raise ImageError(f"{found} cannot be read: {error.strerror}") from error
        with file:
            yield file


class LayoutBlobs:
    """The blobs of a layout."""

    def __init__(self, files: Files) -> None:
        self._files = files

    @contextmanager
    def open(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """As in BlobStore."""
        with self._files.open("blobs/" + descriptor.digest.replace(":", "/", 1)) as reader:
            yield reader


class LayoutSource:
    """The images of a layout, by the names that its index gives them."""

    def __init__(self, files: Files) -> None:
        self._name = files.name
        self._blobs = LayoutBlobs(files)
        self._entries = parse_index(read_small(files, "index.json"), f"{files.name}: index.json")

    def find(self, reference: Reference) -> Image | None:
        """As in ImageSource."""
        root = _entry(self._entries, reference)
        return None if root is None else load_image(self._blobs, root, str(reference))


def read_small(files: Files, path: str) -> bytes:
    """A document as a whole. Raises ImageError, ImageMissingError."""
    with files.open(path) as reader:
        data = reader.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise ImageError(f"{files.name}: {path} is larger than {MAX_DOCUMENT} bytes")
    return data


def _entry(entries: Sequence[Descriptor], reference: Reference) -> Descriptor | None:
    """By digest, else by full name, else, in a layout of one image, by its bare tag."""
    if reference.digest is not None:
        return next((entry for entry in entries if entry.digest == reference.digest), None)
    for entry in entries:
        if _full_name(entry) == reference.without_digest:
            return entry
    if len(entries) != 1 or _FULL_NAME in entries[0].annotations:
        return None
    return entries[0] if entries[0].annotations.get(_REF_NAME) in (None, reference.tag) else None


def _full_name(entry: Descriptor) -> str | None:
    for key in (_FULL_NAME, _REF_NAME):
        text = entry.annotations.get(key, "")
        if "/" in text or (key == _FULL_NAME and text):
            try:
                return parse_reference(text).without_digest
            except ImageError:
                return None
    return None
