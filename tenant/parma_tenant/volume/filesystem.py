"""The plaintext of a volume: a folder as an ext4 file system, in a file that nobody else can open. No root needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from parma_api.block.integrity import BLOCK
from parma_api.layer import Digests, Limits, convert
from parma_api.status import FailedPreconditionError, InvalidArgumentError

_MKFS: Final = "mke2fs"
_SBIN: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin")


class VolumeContentError(InvalidArgumentError):
    """What shall be in the volume cannot be: the folder is none, or does not fit."""


@contextmanager
def compact(folder: Path, beside: Path) -> Iterator[tuple[IO[bytes], int]]:
    """A read-only file system just large enough, and its size in blocks; the same for the same files and times.

    `beside`: where temporary files may lie. Raises VolumeContentError, LayerError.
    """
    _require_folder(folder)
    with (
        tempfile.TemporaryFile(dir=beside) as tar,
        tempfile.TemporaryFile(dir=beside, buffering=0) as image,
    ):
        _write_tar(folder, tar)
        tar.seek(0)
        made = convert(tar, image.fileno(), limits=Limits(), digests=Digests.ROOT)
        yield image, made.data_blocks


def _write_tar(folder: Path, out: IO[bytes]) -> None:
    try:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(folder, arcname=".")
    except OSError as error:
        name = f"{folder}" if error.filename is None else f"{error.filename}"
        raise VolumeContentError(f"{name} cannot be read: {error.strerror or error}") from error


@contextmanager
def writable(folder: Path | None, blocks: int, beside: Path) -> Iterator[IO[bytes]]:
    """A journalled ext4 of exactly `blocks`, empty or with the folder's files.

    Raises VolumeContentError, FailedPreconditionError (no mke2fs).
    """
    if folder is not None:
        _require_folder(folder)
    with tempfile.NamedTemporaryFile(dir=beside, prefix=".parma-", buffering=0) as image:
        os.truncate(image.fileno(), blocks * BLOCK)
        arguments = [_find_mkfs(), *_mkfs_options(folder), image.name, str(blocks)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            reason = last.removeprefix("mke2fs: ")[:200]
            raise VolumeContentError(
                f"the folder does not fit (mke2fs: {reason}): name a larger --size"
            )
        yield image


def _mkfs_options(folder: Path | None) -> list[str]:
    content = [] if folder is None else ["-d", str(folder)]
    return [
        *("-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-m", "0", "-I", "256"),
        *("-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard"),
        *content,
    ]


def _find_mkfs() -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SBIN])
    found = shutil.which(_MKFS, path=path)
    if found is None:
        raise FailedPreconditionError("mke2fs is missing: install e2fsprogs")
    return found


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise VolumeContentError(f"{folder} is no folder")
