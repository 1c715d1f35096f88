"""The pod: its network and namespaces, the process that keeps a shared pid namespace, connections to its loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

from parma_api.ids import SandboxId
from parma_api.status import FailedPreconditionError, UnavailableError
from parma_guest.linux import mount
from parma_guest.linux.errno import kernel_call
from parma_guest.linux.libc import SYS_UNSHARE, syscall
from parma_guest.linux.netns import PINNED, PodNamespaces, in_thread
from parma_guest.linux.pidfd import CHILDREN, SPAWNING
from parma_guest.net.config import InterfaceRequest, RouteRequest
from parma_guest.net.service import Network
from parma_guest.oci.build import Namespaces

PAUSE = "/usr/libexec/parma/pause"
"""The image's init under its other name: reaps, and ends on SIGTERM."""
_CLONE_NEWPID = 0x20000000
_CONNECT_SECONDS = 5.0
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Pod:
    """See NetworkPort."""

    def __init__(self, root: str = PINNED, pause: str = PAUSE) -> None:
        self._network = Network(root)
        self._root = root
        self._pause = pause
        self._sandbox: SandboxId | None = None
        self._pid_path: str | None = None

    async def setup(
        self,
        sandbox: SandboxId,
        hostname: str,
        interfaces: Sequence[InterfaceRequest],
        routes: Sequence[RouteRequest],
        sysctls: Sequence[tuple[str, str]],
    ) -> None:
        """See NetworkPort."""
        await self._network.setup(sandbox, hostname, interfaces, routes, sysctls)
        self._sandbox = sandbox

    def close(self) -> None:
        """See NetworkPort."""
        self._network.close()

    async def namespaces(self, *, share_pid: bool) -> Namespaces:
        """See NetworkPort."""
        pinned = self._pinned()
        pid = None
        if share_pid:
            if self._pid_path is None:
                self._pid_path = await asyncio.to_thread(self._make_pid_namespace)
            pid = self._pid_path
        return Namespaces(pinned.path("ipc"), pinned.path("uts"), pinned.path("net"), pid)

    def _pinned(self) -> PodNamespaces:
        return self._network.namespaces

    def _make_pid_namespace(self) -> str:
        """A pid namespace lives as long as its first process: one that does nothing but reap."""
        if not os.access(self._pause, os.X_OK):
            raise FailedPreconditionError(
                f"this image has no {self._pause}: no shared pid namespace"
            )
        path = f"{self._root}/{self._sandbox}/pid"
        with kernel_call("create", path):
            os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o400))
        pid = in_thread(self._start_pause)
        mount.bind(f"/proc/{pid}/ns/pid", path)
        return path

    def _start_pause(self) -> int:
        syscall("unshare", SYS_UNSHARE, _CLONE_NEWPID)
        with SPAWNING, kernel_call("posix_spawn", self._pause):
            pid = os.posix_spawn(self._pause, ["pause"], {}, setsid=True)
            CHILDREN.add(pid)  # its end is the pod's end; nobody waits for it
        return pid

    async def connect(self, port: int) -> int:
        """See NetworkPort."""
        loop = asyncio.get_running_loop()
        failure = "nobody listens"
        for family, address in _LOOPBACK:
            sock = await asyncio.to_thread(
                self._pinned().run, lambda f=family: _socket(f), ("net",)
            )
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await loop.sock_connect(sock, (address, port))
                return sock.detach()
            except TimeoutError:
                failure = "no answer"
            except OSError as error:
                failure = os.strerror(error.errno or 0)
            finally:
                sock.close()
        raise UnavailableError(f"port {port} of the pod's loopback: {failure}")


def _socket(family: int) -> socket.socket:
    """A socket belongs to the network namespace in which it is made."""
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
