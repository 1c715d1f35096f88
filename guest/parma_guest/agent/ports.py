"""What the agent needs of the guest's other parts: real ones in the guest, fakes in tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from parma_api.ids import ContainerId, SandboxId
from parma_guest.linux.blockdev import ScsiAddress
from parma_guest.net.config import InterfaceRequest, RouteRequest
from parma_guest.oci.build import Namespaces
from parma_guest.storage.files import Entry
from parma_guest.storage.layers import LayerClaim
from parma_guest.storage.ledger import Snapshot


class StoragePort(Protocol):
    """`parma_guest.storage.service.Storage`."""

    def snapshot(self) -> Snapshot: ...
    def is_encrypted(self, scratch_path: str) -> bool: ...
    def check_mount_layer(self, address: ScsiAddress, target: str) -> None: ...
    async def read_claim(self, address: ScsiAddress) -> LayerClaim: ...
    async def mount_layer(self, found: LayerClaim, target: str) -> None: ...
    def check_unmount_layer(self, target: str) -> None: ...
    async def unmount_layer(self, target: str) -> None: ...
    def check_mount_scratch(
        self, address: ScsiAddress, target: str, sandbox: SandboxId, filesystem: str = "ext4"
    ) -> None: ...
    async def mount_scratch(
        self, address: ScsiAddress, target: str, sandbox: SandboxId
    ) -> None: ...
    def check_unmount_scratch(self, target: str) -> None: ...
    async def unmount_scratch(self, target: str) -> None: ...
    def check_mount_overlay(
        self,
        container: ContainerId,
        layer_paths: Sequence[str],
        target: str,
        scratch_path: str | None,
    ) -> None: ...
    async def mount_overlay(
        self,
        container: ContainerId,
        layer_paths: Sequence[str],
        target: str,
        scratch_path: str | None,
    ) -> None: ...
    def check_unmount_overlay(self, target: str, container: ContainerId | None = None) -> None: ...
    async def unmount_overlay(self, target: str) -> None: ...
    def hold_overlay(self, target: str, container: ContainerId) -> None: ...
    def release_overlay(self, target: str, container: ContainerId) -> None: ...


class FilesPort(Protocol):
    """`parma_guest.storage.files.PodFiles`; blocks."""

    def put(self, entries: Sequence[Entry], replace: str = "") -> None: ...
    def release(self) -> None: ...


class NetworkPort(Protocol):
    """The pod's network and namespaces (`agent.pod.Pod`)."""

    async def setup(
        self,
        sandbox: SandboxId,
        hostname: str,
        interfaces: Sequence[InterfaceRequest],
        routes: Sequence[RouteRequest],
        sysctls: Sequence[tuple[str, str]],
    ) -> None:
        """Once. Raises FailedPreconditionError, InvalidArgumentError, KernelError."""
        ...

    def close(self) -> None:
        """No change from here on: the first container is about to start."""
        ...

    async def namespaces(self, *, share_pid: bool) -> Namespaces:
        """Paths for the runtime. Raises FailedPreconditionError before `setup`."""
        ...

    async def connect(self, port: int) -> int:
        """A connected, non-blocking socket to a TCP port of the pod's loopback. Raises UnavailableError."""
        ...


class SourcesPort(Protocol):
    """Bind mounts of the agent's own, of the pod's files (`agent.sources`)."""

    async def pin(
        self,
        sandbox: SandboxId,
        container: ContainerId,
        sources: Mapping[str, str],
        shared: Collection[str] = (),
    ) -> Mapping[str, str]:
        """Judged source -> a path that nobody can exchange; `sources`: judged source -> path in the pod's directory.

        Beneath those that are `shared`, what one container mounts the others can see.

        Raises KernelError (ELOOP: a link stands in the way), InvalidArgumentError.
        """
        ...

    def unpin(self, container: ContainerId) -> None:
        """The runtime has made its own copies. Idempotent. Raises KernelError."""
        ...

    async def last_words(self, sandbox: SandboxId, inner: str) -> bytes:
        """The end of a regular file beneath the pod's directory, a bounded number of bytes; empty if there is none."""
        ...

    def unshare(self, sandbox: SandboxId) -> None:
        """Takes the mounts beneath shared sources away, before the scratch around them is unmounted."""
        ...

    def shared_memory(self, sandbox: SandboxId) -> str:
        """The pod's /dev/shm, made at the first call. Raises KernelError."""
        ...


class FreezerPort(Protocol):
    """The control group above all containers (`linux.cgroup.Cgroup`); blocks."""

    def freeze(self, timeout: float = 10.0) -> None: ...
    def thaw(self, timeout: float = 10.0) -> None: ...
