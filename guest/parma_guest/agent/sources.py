"""Sources of bind mounts, held so that no container can put a link in their place (policy.md 14 f).

Each is opened beneath the pod's directory, through no link, and bound to a path of the agent's own; the runtime binds
that. When the container exists it has copies of its own, and ours go. What does not exist yet becomes an empty
directory that everybody may write to, as an emptyDir is.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from errno import EINVAL, ENOENT

from parma_api.ids import ContainerId, SandboxId
from parma_api.status import InvalidArgumentError
from parma_api.volumes import NETWORK_FILES, pod_directory
from parma_guest.agent.layout import Layout
from parma_guest.linux import mount
from parma_guest.linux.beneath import Beneath
from parma_guest.linux.errno import KernelError, kernel_call

_SHM_OPTIONS = "mode=1777,size=65536k"
_EMPTY_DIR = 0o777
_EMPTY_DIR_DEPTH = 4
"""Parts of sandboxMounts/volumes/empty-dir/NAME; what is deeper is a subPath, and like the emptyDir itself."""
MAX_LAST_WORDS = 4096
"""What kubelet reads of a termination log."""
_DEFAULTS = {"hosts": b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"}


class Sources:
    """See SourcesPort."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._shared: list[str] = []

    async def pin(
        self,
        sandbox: SandboxId,
        container: ContainerId,
        sources: Mapping[str, str],
        shared: Collection[str] = (),
    ) -> Mapping[str, str]:
        """See SourcesPort."""
        return await asyncio.to_thread(self._pin, sandbox, container, sources, shared)

    def _pin(
        self,
        sandbox: SandboxId,
        container: ContainerId,
        sources: Mapping[str, str],
        shared: Collection[str],
    ) -> Mapping[str, str]:
        if not sources:
            return {}
        folder = self._layout.pins(container)
        with kernel_call("mkdir", folder):
            os.makedirs(folder, 0o700)  # noqa: PTH103 (pathlib costs an import)
        pins: dict[str, str] = {}
        try:
            with Beneath(self._layout.real(pod_directory(sandbox))) as tree:
                for number, (source, inner) in enumerate(sources.items()):
                    if source in shared and inner not in self._shared:
                        _share(tree, inner)
                        self._shared.append(inner)
                    pins[source] = _bind(tree, inner, f"{folder}/{number}")
        except BaseException:
            self.unpin(container)
            raise
        return pins

    def unpin(self, container: ContainerId) -> None:
        """See SourcesPort."""
        folder = self._layout.pins(container)
        with kernel_call("listdir", folder), suppress(FileNotFoundError):
            for name in os.listdir(folder):  # noqa: PTH208 (pathlib costs an import)
                _unbind(f"{folder}/{name}")
            os.rmdir(folder)  # noqa: PTH106 (pathlib costs an import)

    def unshare(self, sandbox: SandboxId) -> None:
        """See SourcesPort."""
        with Beneath(self._layout.real(pod_directory(sandbox))) as tree:
            while self._shared:
                _unshare(tree, self._shared[-1])
                self._shared.pop()

    async def last_words(self, sandbox: SandboxId, inner: str) -> bytes:
        """See SourcesPort."""
        return await asyncio.to_thread(self._last_words, sandbox, inner)

    def _last_words(self, sandbox: SandboxId, inner: str) -> bytes:
        try:
            with Beneath(self._layout.real(pod_directory(sandbox))) as tree:
                fd = tree.open(inner, os.O_RDONLY | os.O_NONBLOCK)
        except KernelError:
            return b""
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return b""
            return os.pread(fd, MAX_LAST_WORDS, max(0, status.st_size - MAX_LAST_WORDS))
        finally:
            os.close(fd)

    def shared_memory(self, sandbox: SandboxId) -> str:
        """See SourcesPort."""
        path = self._layout.shm(sandbox)
        if not os.path.ismount(path):
            with kernel_call("mkdir", path):
                os.makedirs(path, 0o755, exist_ok=True)  # noqa: PTH103 (pathlib costs an import)
            quiet = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
            mount.mount("tmpfs", path, "tmpfs", quiet, _SHM_OPTIONS)
        return path


def _bind(tree: Beneath, inner: str, pin: str) -> str:
    _ensure(tree, inner)
    fd = tree.open(inner, os.O_PATH)
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):  # O_PATH opens a last link itself
            raise InvalidArgumentError(
                f"mount source {inner}: neither a directory nor a file, but a link or a device"
            )
        with kernel_call("make", pin):
            if stat.S_ISDIR(mode):
                os.mkdir(pin, 0o700)  # noqa: PTH102 (pathlib costs an import)
            else:
                os.close(os.open(pin, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        mount.mount(f"/proc/thread-self/fd/{fd}", pin, "", mount.MS_BIND | mount.MS_REC)
    finally:
        os.close(fd)
    return pin


def _share(tree: Beneath, inner: str) -> None:
    """Make a directory a mount of its own whose mounts propagate (mount_namespaces(7)); a file stays as it is."""
    _ensure(tree, inner)
    fd = tree.open(inner, os.O_PATH)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            return
        itself = f"/proc/thread-self/fd/{fd}"
        mount.mount(itself, itself, "", mount.MS_BIND)
    finally:
        os.close(fd)
    fd = tree.open(inner, os.O_PATH)  # now the mount's root
    try:
        mount.mount("", f"/proc/thread-self/fd/{fd}", "", mount.MS_SHARED)
    finally:
        os.close(fd)


def _unshare(tree: Beneath, inner: str) -> None:
    fd = tree.open(inner, os.O_PATH)
    try:
        mount.umount_of(fd)
    except KernelError as error:
        if error.number != EINVAL:  # no mount of its own: it was a file
            raise
    finally:
        os.close(fd)


def _ensure(tree: Beneath, inner: str) -> None:
    if tree.exists(inner):
        return
    if inner in NETWORK_FILES.values():
        tree.write(inner, _DEFAULTS.get(inner, b""), 0o644)
        return
    tree.make_parents("/".join(inner.split("/")[:_EMPTY_DIR_DEPTH]))
    tree.make_missing(inner, _EMPTY_DIR)


def _unbind(pin: str) -> None:
    try:
        # Otherwise what others mounted beneath a shared source would be unmounted for them too.
        mount.mount("", pin, "", mount.MS_REC | mount.MS_PRIVATE)
        mount.umount(pin, mount.MNT_DETACH)
    except KernelError as error:
        if error.number not in (EINVAL, ENOENT):  # made, and not bound
            raise
    with kernel_call("remove", pin):
        if os.path.isdir(pin):  # noqa: PTH112 (pathlib costs an import)
            os.rmdir(pin)  # noqa: PTH106
        else:
            os.unlink(pin)  # noqa: PTH108
