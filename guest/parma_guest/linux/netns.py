"""The pod's network, IPC and UTS namespaces: made by a thread of their own, kept alive by bind mounts."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from parma_guest.linux import mount
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.linux.libc import SYS_SETNS, SYS_UNSHARE, syscall

PINNED = "/run/parma/ns"
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000
_FLAGS = {"net": CLONE_NEWNET, "ipc": CLONE_NEWIPC, "uts": CLONE_NEWUTS}

Result = TypeVar("Result")


def in_thread(work: Callable[[], Result]) -> Result:
    """Run `work` in a new thread, which ends with it: namespaces that it enters are nobody else's."""
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            failure.append(error)

    thread = threading.Thread(target=run, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class PodNamespaces:
    """Where the pod's namespaces are pinned: `<root>/<pod>/{net,ipc,uts}`."""

    def __init__(self, pod: str, root: str = PINNED) -> None:
        self._folder = f"{root}/{pod}"

    def path(self, kind: str) -> str:
        """The file that stands for the namespace; an OCI document may name it."""
        if kind not in _FLAGS:
            raise KeyError(kind)
        return f"{self._folder}/{kind}"

    def create(self) -> None:
        """Make and pin all three. Raises KernelError; then none is left."""
        with kernel_call("mkdir", self._folder):
            os.makedirs(self._folder, 0o700)  # noqa: PTH103 (pathlib costs an import)
        for kind in _FLAGS:
            with kernel_call("create", self.path(kind)):
                os.close(os.open(self.path(kind), os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o400))
        try:
            in_thread(self._unshare_and_pin)
        except KernelError:
            self.remove()
            raise

    def _unshare_and_pin(self) -> None:
        syscall("unshare", SYS_UNSHARE, sum(_FLAGS.values()))
        for kind in _FLAGS:
            mount.bind(f"/proc/thread-self/ns/{kind}", self.path(kind))

    def remove(self) -> None:
        """Unpin; a namespace ends with its last process."""
        for kind in _FLAGS:
            try:
                mount.umount(self.path(kind), mount.MNT_DETACH)
            except KernelError as error:
                if error.number not in (2, 22):  # ENOENT, EINVAL: not pinned
                    raise
            with kernel_call("unlink", self.path(kind)):
                os.unlink(self.path(kind))  # noqa: PTH108 (pathlib costs an import)
        with kernel_call("rmdir", self._folder):
            os.rmdir(self._folder)  # noqa: PTH106 (pathlib costs an import)

    def open(self, kind: str) -> int:
        """A descriptor of the namespace."""
        with kernel_call("open", self.path(kind)):
            return os.open(self.path(kind), os.O_RDONLY | os.O_CLOEXEC)

    def run(
        self, work: Callable[[], Result], kinds: tuple[str, ...] = ("net", "ipc", "uts")
    ) -> Result:
        """Run `work` in a thread inside the namespaces."""

        def enter() -> Result:
            for kind in kinds:
                fd = self.open(kind)
                try:
                    syscall("setns", SYS_SETNS, fd, _FLAGS[kind], what=self.path(kind))
                finally:
                    os.close(fd)
            return work()

        return in_thread(enter)

    def set_hostname(self, name: str) -> None:
        """The pod's host name."""

        def work() -> None:
            with kernel_call("sethostname", name):
                socket.sethostname(name)

        self.run(work, ("uts",))
