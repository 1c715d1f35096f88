"""A volume's blob as a block device of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from parma_api.status import DataLossError
from parma_tenant.sidecar.volume.blob import Blob, FileBlob, HttpBlob
from parma_tenant.sidecar.volume.config import Volume
from parma_tenant.sidecar.volume.kernel import kernel_call
from parma_tenant.sidecar.volume.nbd import NetworkDevice
from parma_tenant.sidecar.volume.opening import device_size
from parma_tenant.volume.key import Kind, VolumeKey


@dataclass(frozen=True, slots=True)
class Attached:
    """`number` is major:minor."""

    number: str
    close: Callable[[], None]


def attach(volume: Volume, key: VolumeKey, roots: str = "") -> Attached:
    """The device; `roots` as of HttpBlob.

    Raises DataLossError (a blob of another size), BlobError, UnavailableError, KernelError.
    """
    if volume.path is not None and _is_block(volume.path):
        _check_size(device_size(volume.path), key)
        return Attached(_number(volume.path), lambda: None)
    writable = key.kind is Kind.READ_WRITE
    blob: Blob
    if volume.url is not None:
        blob = HttpBlob(volume.url, roots)
    else:
        assert volume.path is not None
        blob = FileBlob(volume.path, writable=writable)
    with ExitStack() as undo:
        undo.callback(blob.close)
        _check_size(blob.size(), key)
        device = NetworkDevice(blob, key.blob_size, writable=writable)
        undo.callback(device.close)
        return Attached(device.number, undo.pop_all().close)


def _check_size(size: int, key: VolumeKey) -> None:
    """The place of everything in a read-write blob depends on its size."""
    exact = key.kind is Kind.READ_WRITE
    if size < key.blob_size or (exact and size != key.blob_size):
        raise DataLossError(
            f"the blob has {size} bytes, the volume's key says {key.blob_size}: it is another one, or was cut"
        )


def _is_block(path: str) -> bool:
    with kernel_call("stat", path):
        return stat.S_ISBLK(os.stat(path).st_mode)  # noqa: PTH116 (pathlib costs an import)


def _number(path: str) -> str:
    about = os.stat(path)  # noqa: PTH116
    return f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"
