"""Blobs made in user space: no device-mapper, no root, no VM; the kernel that opens them finds what it would write."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from parma_api.block.integrity import BLOCK, TAG_BYTES, Layout
from parma_api.ids import RootHash
from parma_api.layer.verity import VerityTree, superblock
from parma_api.status import AlreadyExistsError, FailedPreconditionError, InvalidArgumentError
from parma_tenant.volume.filesystem import compact, writable
from parma_tenant.volume.key import MAX_BLOCKS, MIN_WRITABLE, SECRET_BYTES, Kind, VolumeKey
from parma_tenant.volume.sectors import Encryptor, Sealer

Progress = Callable[[int, int], None]
"""Bytes done, bytes in all."""
_PIECE: Final = 256
_ANY_ROOT: Final = RootHash("0" * 64)


def create_read_only(folder: Path, out: Path, progress: Progress = lambda *_: None) -> VolumeKey:
    """A blob of the folder's files, and its key. Raises AlreadyExistsError, VolumeContentError, LayerError."""
    secret = secrets.token_bytes(SECRET_BYTES)
    with _new_file(out) as blob, compact(folder, out.parent) as (image, blocks):
        key = VolumeKey(Kind.READ_ONLY, blocks, _ANY_ROOT, secret)
        root = _encrypt_under_tree(image, blob, key, progress)
    return VolumeKey(Kind.READ_ONLY, blocks, root, secret)


def _encrypt_under_tree(
    image: IO[bytes], blob: IO[bytes], key: VolumeKey, progress: Progress
) -> RootHash:
    encryptor, tree = Encryptor(key.cipher_key()), VerityTree()
    try:
        for first in range(0, key.blocks, _PIECE):
            data = _blocks(image, first, min(_PIECE, key.blocks - first))
            sealed = b"".join(encryptor.encrypt(first + n, one) for n, one in enumerate(data))
            tree.add(memoryview(sealed))
            _write(blob, first * BLOCK, sealed)
            progress((first + len(data)) * BLOCK, key.blob_size)
        root = tree.finish()
        at = key.blocks * BLOCK
        for piece in (superblock(key.blocks).ljust(BLOCK, b"\0"), *tree.levels()):
            _write(blob, at, piece)
            at += len(piece)
    finally:
        tree.close()
    progress(key.blob_size, key.blob_size)
    return root


def create_read_write(
    folder: Path | None, size: int, out: Path, progress: Progress = lambda *_: None
) -> VolumeKey:
    """A blob of `size` bytes, empty or with the folder's files, and its key.

    Every block is written and has its tag: nobody sees which are in use, and none reads as an error. The superblock
    and the journal stay zero: the first to open it formats them. Raises InvalidArgumentError, AlreadyExistsError,
    VolumeContentError, FailedPreconditionError.
    """
    if size % BLOCK or not MIN_WRITABLE * BLOCK <= size <= MAX_BLOCKS * BLOCK:
        raise InvalidArgumentError(
            f"a read-write volume has 16 MiB to 16 TiB, a multiple of {BLOCK} bytes"
        )
    key = VolumeKey(Kind.READ_WRITE, size // BLOCK, None, secrets.token_bytes(SECRET_BYTES))
    with _new_file(out) as blob, writable(folder, key.layout.blocks, out.parent) as image:
        os.truncate(blob.fileno(), size)
        _seal(image, blob, key, progress)
    return key


def _seal(image: IO[bytes], blob: IO[bytes], key: VolumeKey, progress: Progress) -> None:
    sealer, layout = Sealer(key.cipher_key()), key.layout
    for first in range(0, layout.blocks, _PIECE):
        count = min(_PIECE, layout.blocks - first)
        sealed = [sealer.seal(first + n, one) for n, one in enumerate(_blocks(image, first, count))]
        _write_sealed(blob, layout, first, sealed)
        progress((first + count) * BLOCK, layout.blocks * BLOCK)


def _write_sealed(
    blob: IO[bytes], layout: Layout, first: int, sealed: list[tuple[bytes, bytes]]
) -> None:
    """A piece divides the 4096 blocks of an area, so its blocks, and its tags, are one run."""
    _write(blob, layout.data_at(first), b"".join(data for data, _ in sealed))
    tags = b"".join(tag for _, tag in sealed)
    assert len(tags) == TAG_BYTES * len(sealed)
    _write(blob, layout.tag_at(first), tags)


def _blocks(image: IO[bytes], first: int, count: int) -> list[memoryview]:
    data = memoryview(
        os.pread(image.fileno(), count * BLOCK, first * BLOCK).ljust(count * BLOCK, b"\0")
    )
    return [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]


def _write(blob: IO[bytes], at: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(blob.fileno(), view, at)
        at, view = at + done, view[done:]


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that was not there before, and is not there after a failure. Raises AlreadyExistsError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise AlreadyExistsError(f"{path} is there already: name another file") from None
    except OSError as error:
        raise FailedPreconditionError(f"{path} cannot be made: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise FailedPreconditionError(f"{path} cannot be written: {error.strerror}") from error
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise
