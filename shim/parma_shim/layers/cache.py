"""The cache of converted layers: each is converted once for all pods of the host, and never evicted while in use.

Files of a layer, all in one folder, by diff id and format version: `HEX.vN.img`, `.json`, and while somebody changes
them `.lock` and `.part`. A part becomes an image by a rename after everything is on disk, so that a crash leaves either
no image or a whole one. The folder needs no daemon and no index: what is there is what counts.

| lock | who |
|---|---|
| `.lock` | whoever converts or evicts this layer |
| shared on the image | whoever uses it, through the open descriptor |
| exclusive on the image | whoever evicts it, with `.lock` held too, and without waiting |
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from parma_api.ids import DiffId, RootHash
from parma_api.layer import FORMAT_VERSION, Digests, Limits, convert
from parma_api.layer.errors import (
    DigestError,
    LayerDiskFullError,
    LayerReadError,
    LayerWriteError,
    write_error,
)
from parma_api.status import DataLossError, InternalError, InvalidArgumentError
from parma_shim.layers.locks import Wait, is_current, locked, take
from parma_shim.layers.sidecar import (
    MAX_SIDECAR,
    Sidecar,
    check_image,
    describe,
    parse_sidecar,
)

log = logging.getLogger(__name__)

_DIFF_ID = re.compile(r"sha256:([0-9a-f]{64})")
_LIMITS = Limits()
_SECTOR = 512
"""Of st_blocks (stat(2))."""


@dataclass(slots=True)
class CachedLayer:
    """An image that stays where it is until `close`. The descriptor is read-only; copies of it hold the image too."""

    fd: int
    path: Path
    sidecar: Sidecar

    @property
    def root_hash(self) -> RootHash:
        """Of its verity tree."""
        return self.sidecar.root_hash

    @property
    def data_blocks(self) -> int:
        """Of 4096 bytes: the file system."""
        return self.sidecar.data_blocks

    @property
    def image_size(self) -> int:
        """Bytes of the file system; the verity superblock follows."""
        return self.sidecar.image_size

    @property
    def file_size(self) -> int:
        """Bytes of the whole file."""
        return self.sidecar.file_size

    def close(self) -> None:
        """The image may be evicted, unless others use it. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """What `ls` shows: bytes on disk, seconds since 1970 of the last use."""

    diff_id: DiffId
    version: int
    size: int
    last_used: float
    in_use: bool


@dataclass(frozen=True, slots=True)
class _Files:
    """The names of one layer's files."""

    root: Path
    stem: str

    def with_suffix(self, suffix: str) -> Path:
        return self.root / (self.stem + suffix)

    @property
    def image(self) -> Path:
        return self.with_suffix(".img")

    @property
    def sidecar(self) -> Path:
        return self.with_suffix(".json")

    @property
    def lock(self) -> Path:
        return self.with_suffix(".lock")

    def new_part(self) -> Path:
        return self.with_suffix(f".{secrets.token_hex(4)}.part")

    def parts(self) -> list[Path]:
        return list(self.root.glob(f"{self.stem}.*.part"))


class LayerCache:
    """A folder of images, at most `limit_bytes` of them on disk apart from what is in use.

    All calls block; they may run in any number of threads and processes at a time.
    """

    def __init__(self, root: Path, limit_bytes: int, limits: Limits = _LIMITS) -> None:
        self._root = root
        self._limit = limit_bytes
        self._limits = limits

    def acquire(
        self,
        diff_id: DiffId,
        open_blob: Callable[[], BinaryIO],
        progress: Callable[[int], None] = lambda _read: None,
    ) -> CachedLayer:
        """The layer's image, converted from the blob if it is not here yet; whoever comes second waits for the first.

        `open_blob` is called for a miss only, and the blob closed. Raises DigestError if the blob is another layer,
        LayerError for one that has no image, LayerWriteError for a full disk or a folder that cannot be written, and
        what opening and reading the blob raise. Nothing is left of a failed conversion.
        """
        files = self._files(diff_id)
        if (hit := self._open(files, diff_id, Wait.NO)) is not None:
            return hit
        with self._errors():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(files.lock, Wait.YES):
                found = self._open(files, diff_id, Wait.YES)
                if found is None:
                    self._fill(files, diff_id, open_blob, progress)
                    found = self._open(files, diff_id, Wait.YES)
        if found is None:
            raise InternalError(f"{files.image} was written and is not what it was: check the disk")
        try:
            self.prune(self._limit)
        except LayerWriteError as error:
            log.warning("the layer cache could not be shrunk: %s", error.message)
        return found

    def entries(self) -> list[CacheEntry]:
        """What is here, last used last. Images of other versions than this program's are listed too."""
        with self._errors():
            found = [self._entry(files) for files in self._all_files(".img")]
        return sorted((entry for entry in found if entry), key=lambda entry: entry.last_used)

    def prune(self, keep_bytes: int = 0) -> int:
        """Evicts images that nobody uses, longest unused first, until `keep_bytes` are left; and what crashes left.

        Result: bytes freed.
        """
        with self._errors():
            self._sweep()
        entries = self.entries()
        total, freed = sum(entry.size for entry in entries), 0
        for entry in entries:
            if total - freed <= keep_bytes:
                break
            if not entry.in_use and self._evict(self._files(entry.diff_id, entry.version)):
                freed += entry.size
        return freed

    def _files(self, diff_id: DiffId, version: int = FORMAT_VERSION) -> _Files:
        match = _DIFF_ID.fullmatch(diff_id)
        if match is None:
            raise InvalidArgumentError("a layer's diff id is not sha256: and 64 hexadecimal digits")
        return _Files(self._root, f"{match[1]}.v{version}")

    def _open(self, files: _Files, diff_id: DiffId, wait: Wait) -> CachedLayer | None:
        """The image if it is here and sound. None too, with Wait.NO, while somebody evicts it."""
        try:
            fd = os.open(files.image, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, fd)
            if not take(fd, fcntl.LOCK_SH, wait) or not is_current(fd, files.image):
                return None
            try:
                sidecar = parse_sidecar(_read(files.sidecar), diff_id)
                check_image(fd, sidecar)
            except (DataLossError, OSError) as error:
                log.warning("cached layer %s is not usable: %s", diff_id, error)
                return None
            with contextlib.suppress(OSError):
                os.utime(files.sidecar)
            stack.pop_all()
        return CachedLayer(fd, files.image, sidecar)

    def _fill(
        self,
        files: _Files,
        diff_id: DiffId,
        open_blob: Callable[[], BinaryIO],
        progress: Callable[[int], None],
    ) -> None:
        """Converts; if the disk is full, once more without the images that nobody uses."""
        started = time.monotonic()
        try:
            size = self._convert(files, diff_id, open_blob, progress)
        except LayerDiskFullError:
            if not self.prune():
                raise
            log.warning("disk full: unused layers were evicted, %s is converted again", diff_id)
            size = self._convert(files, diff_id, open_blob, progress)
        log.info(
            "converted layer %s: %d MiB in %.1f s", diff_id, size >> 20, time.monotonic() - started
        )

    def _convert(
        self,
        files: _Files,
        diff_id: DiffId,
        open_blob: Callable[[], BinaryIO],
        progress: Callable[[int], None],
    ) -> int:
        """The image and its sidecar, both on disk before they get their names. Result: the image's size."""
        with self._errors(), self._part(files) as (part, fd):
            with _opened(open_blob) as blob:
                image = convert(
                    blob, fd, limits=self._limits, digests=Digests.ROOT, progress=progress
                )
            if image.diff_id != diff_id:
                raise DigestError(
                    f"the layer's uncompressed content is {image.diff_id}, the image's config says {diff_id}: "
                    "pull the image again"
                )
            os.fchmod(fd, 0o400)
            os.fsync(fd)
            with self._part(files) as (sidecar, sidecar_fd):
                os.write(sidecar_fd, describe(image).encode())
                os.fsync(sidecar_fd)
                sidecar.replace(files.sidecar)
            part.replace(files.image)
            self._sync()
            return image.file_size

    @contextmanager
    def _part(self, files: _Files) -> Iterator[tuple[Path, int]]:
        """A new file and its descriptor; what still has the name afterwards is removed."""
        path = files.new_part()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield path, fd
        finally:
            os.close(fd)
            path.unlink(missing_ok=True)

    def _sync(self) -> None:
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _entry(self, files: _Files) -> CacheEntry | None:
        """None if it was evicted just now."""
        digest, _, version = files.stem.partition(".v")
        try:
            fd = os.open(files.image, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(fd)
            used = not take(fd, fcntl.LOCK_EX, Wait.NO)
        finally:
            os.close(fd)
        try:
            last_used = files.sidecar.stat().st_mtime
        except FileNotFoundError:
            last_used = status.st_mtime
        size = status.st_blocks * _SECTOR
        return CacheEntry(DiffId(f"sha256:{digest}"), int(version), size, last_used, used)

    def _evict(self, files: _Files) -> bool:
        """Whether it is gone: it stays if somebody uses, converts or evicts it at this moment."""
        with self._errors(), locked(files.lock, Wait.NO) as ours:
            if not ours:
                return False
            try:
                fd = os.open(files.image, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return False
            try:
                if not take(fd, fcntl.LOCK_EX, Wait.NO):
                    return False
                files.sidecar.unlink(missing_ok=True)
                files.image.unlink(missing_ok=True)
            finally:
                os.close(fd)
        return True

    def _sweep(self) -> None:
        """Removes parts, locks and sidecars of those who died: where the lock is free nobody is at work."""
        for files in self._all_files(".part", ".lock", ".json"):
            if files.image.exists() and not files.parts() and not files.lock.exists():
                continue
            with locked(files.lock, Wait.NO) as ours:
                if ours:
                    for part in files.parts():
                        part.unlink(missing_ok=True)
                    if not files.image.exists():
                        files.sidecar.unlink(missing_ok=True)

    def _all_files(self, *suffixes: str) -> list[_Files]:
        """Layers that have a file with one of the suffixes. Other names in the folder are nobody's business."""
        if not self._root.is_dir():
            return []
        stems = {
            match[1]
            for path in self._root.iterdir()
            if path.suffix in suffixes and (match := _STEM.match(path.name))
        }
        return [_Files(self._root, stem) for stem in sorted(stems)]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(error, f"the layer cache {self._root}") from error


def _opened(open_blob: Callable[[], BinaryIO]) -> BinaryIO:
    try:
        return open_blob()
    except OSError as error:
        raise LayerReadError(f"the layer's blob cannot be opened: {error.strerror}") from error


_STEM = re.compile(r"([0-9a-f]{64}\.v[0-9]{1,9})\.")


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAX_SIDECAR)
