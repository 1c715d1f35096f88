"""A blob on a block device, opened with what its key says and nothing else; and its file system, mounted."""

from __future__ import annotations

import logging
import mmap
import os
from contextlib import ExitStack
from dataclasses import dataclass
from errno import EBUSY, EINVAL, ENOENT
from hashlib import sha256
from typing import Final

from parma_api.block import tables
from parma_api.block.integrity import BLOCK, Layout
from parma_api.block.tables import Mode, Target
from parma_api.status import ApiError, DataLossError, FailedPreconditionError
from parma_tenant.sidecar.volume import kernel
from parma_tenant.sidecar.volume.kernel import KernelError, kernel_call, logon_key
from parma_tenant.sidecar.volume.mapper import DeviceMapper, make_node
from parma_tenant.volume.key import Kind, VolumeKey

_log = logging.getLogger("parma.volume")
_NAMES: Final = 8
_BELOW: Final = ("verity", "integrity")
_QUIET: Final = kernel.MS_NOSUID | kernel.MS_NODEV


@dataclass(frozen=True, slots=True)
class Opened:
    """The node of the plaintext; `close` takes everything down again, once it is unmounted."""

    node: str
    undo: ExitStack

    def close(self) -> None:
        """Raises KernelError (EBUSY: in use)."""
        self.undo.close()


def free_name(mount_point: str) -> str:
    """A name for the mappings of the volume at that place, once those of a sidecar that was killed are gone.

    Where something still uses such a one, it stays, and the next name is taken. Raises KernelError.
    """
    mapper, place = DeviceMapper(), sha256(mount_point.encode()).hexdigest()[:12]
    for number in range(_NAMES):
        name = f"parma-volume-{place}-{number}"
        try:
            for part in (name, *(f"{name}-{below}" for below in _BELOW)):
                mapper.remove_if_there(part)
        except KernelError as error:
            if error.number != EBUSY:
                raise
            _log.warning("%s", error.message)
        else:
            return name
    raise FailedPreconditionError(
        f"{mount_point}: {_NAMES} killed sidecars' mappings are still in use: start the pod anew"
    )


def clear_place(mount_point: str) -> None:
    """Take the mount of a sidecar that was killed away, for every container. Raises KernelError."""
    for _ in range(_NAMES):
        try:
            kernel.unmount(mount_point, lazily=True)
        except KernelError as error:
            if error.number in (EINVAL, ENOENT):  # no mount there
                return
            raise
        _log.warning("%s: the mount of an earlier sidecar is taken away", mount_point)


def open_volume(key: VolumeKey, number: str, name: str) -> Opened:
    """The volume on the block device `number` (major:minor), whose size is the blob's.

    Raises DataLossError for a blob that is not this key's, KernelError.
    """
    with ExitStack() as undo:
        if key.kind is Kind.READ_ONLY:
            below = _open_verity(key, number, f"{name}-verity", undo)
            table = tables.crypt_plain(below, key.data_sectors, f"parma:{name}")
        else:
            below = _open_integrity(key, number, f"{name}-integrity", undo)
            table = tables.crypt(below, key.data_sectors, f"parma:{name}")
        read_only = key.kind is Kind.READ_ONLY
        mapper = DeviceMapper()
        number = _create(mapper, name, undo)
        with logon_key(f"parma:{name}", key.cipher_key()):
            mapper.load(name, table, read_only=read_only)
        node = _node(number, name)
        return Opened(node, undo.pop_all())


def _open_verity(key: VolumeKey, number: str, name: str, undo: ExitStack) -> str:
    assert key.root is not None
    mapper = DeviceMapper()
    above = _create(mapper, name, undo)
    _load(mapper, name, tables.verity(number, key.blocks, key.root), read_only=True)
    try:
        read_first_block(_node(above, name))
    except KernelError:
        raise DataLossError(
            f"{name}: the blob is not the one that the key belongs to (its hash tree has another root)"
        ) from None
    return above


def _open_integrity(key: VolumeKey, number: str, name: str, undo: ExitStack) -> str:
    check_superblock(read_first_block(_node(number, f"{name}-below")), key.layout)
    mapper = DeviceMapper()
    above = _create(mapper, name, undo)
    target = tables.integrity(number, key.data_sectors, Mode.JOURNAL)
    _load(mapper, name, target, read_only=False)
    return above


def check_superblock(block: bytes, layout: Layout) -> None:
    """Raises DataLossError unless dm-integrity's superblock is what our table makes the kernel write, or all zero.

    Zero it is until a volume is opened for the first time. A host that zeroes it again has the journal discarded:
    no more than it can do by putting older blocks back.
    """
    if any(block) and block != layout.superblock():
        raise DataLossError(
            "the blob's integrity superblock is not what the volume's key says: it was changed, or is another volume's"
        )


def _load(mapper: DeviceMapper, name: str, target: Target, *, read_only: bool) -> None:
    try:
        mapper.load(name, target, read_only=read_only)
    except KernelError as error:
        raise DataLossError(
            f"{name}: the kernel refuses the blob ({error.message}): it is not what the volume's key says"
        ) from error


def _create(mapper: DeviceMapper, name: str, undo: ExitStack) -> str:
    number = mapper.create(name)
    undo.callback(mapper.remove, name)
    return number


def _node(number: str, name: str) -> str:
    major, minor = map(int, number.split(":"))
    return make_node(name, major, minor)


def read_first_block(node: str) -> bytes:
    """Past the page cache. Raises KernelError (EIO: not authentic)."""
    with kernel_call("open", node):
        fd = os.open(node, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, BLOCK) as page, kernel_call("read", f"first block of {node}"):
            if os.preadv(fd, [page], 0) != BLOCK:
                raise DataLossError(f"{node} is shorter than one block")
            return bytes(page)
    finally:
        os.close(fd)


def device_size(node: str) -> int:
    """Bytes of a block device. Raises KernelError."""
    with kernel_call("open", node):
        fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with kernel_call("seek", node):
            return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def mount_volume(key: VolumeKey, node: str, target: str) -> None:
    """Mount the plaintext at a directory, which is made. Raises KernelError."""
    with kernel_call("mkdir", target):
        os.makedirs(target, 0o755, exist_ok=True)  # noqa: PTH103 (a path of this container's)
    if key.kind is Kind.READ_ONLY:
        kernel.mount(node, target, "ext4", _QUIET | kernel.MS_RDONLY, "noload")
    else:
        kernel.mount(node, target, "ext4", _QUIET | kernel.MS_NOATIME, "errors=remount-ro")


def unmount_volume(target: str) -> None:
    """Take it away, even from under a container that still has a file open; said in the log."""
    try:
        kernel.unmount(target)
    except ApiError as error:
        _log.warning("%s: unmounting lazily", error.message)
        kernel.unmount(target, lazily=True)


def is_shared(mountinfo: str, path: str) -> bool:
    """Whether mounts made at `path` are seen by other containers: the mount around it is a shared one (proc(5))."""
    best, shared = "", False
    for line in mountinfo.splitlines():
        words = line.split()
        point = words[4]
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, shared = (
                point,
                any(word.startswith("shared:") for word in words[6 : words.index("-")]),
            )
    return shared
