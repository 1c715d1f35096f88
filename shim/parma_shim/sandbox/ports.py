"""What the supervisor works with: the machine, the network, the layers. The real ones, or those of a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from parma_api.channel.stream import ByteStream
from parma_api.ids import RootHash
from parma_shim.config import HostPaths
from parma_shim.net.facts import PodInterface
from parma_shim.net.portforward import PortRedirect
from parma_shim.podconfig import PodConfig, RuntimeOptions
from parma_shim.vmm.disks import DiskAccess, ScsiAddress
from parma_shim.vmm.machine import MachineExit

T = TypeVar("T")


class Machine(Protocol):
    """`parma_shim.vmm.machine.Machine`."""

    @property
    def channel(self) -> ByteStream: ...

    @property
    def pid(self) -> int: ...

    async def attach_disk(self, fd: int, *, access: DiskAccess) -> ScsiAddress: ...

    async def detach_disk(self, address: ScsiAddress) -> None: ...

    async def wait(self) -> MachineExit: ...

    async def until_answer(self, answer: Awaitable[T], deadline: float) -> T: ...

    async def stop(self) -> MachineExit: ...


class Network(Protocol):
    """`parma_shim.net.pod.PodNetwork`."""

    @property
    def interface(self) -> PodInterface | None: ...

    @property
    def tap_fd(self) -> int | None: ...

    @property
    def mac(self) -> str | None: ...

    async def redirect_ports(self) -> PortRedirect: ...

    async def unplug(self) -> None: ...


class Layer(Protocol):
    """`parma_shim.layers.cache.CachedLayer`: an image in our own format, held until `close`."""

    @property
    def fd(self) -> int: ...

    @property
    def root_hash(self) -> RootHash: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Launch:
    """What one machine needs to know of its pod."""

    pod: PodConfig
    network: Network | None
    cgroups_path: str
    run_dir: Path


class RunningMachine(Protocol):
    """A machine and what was made around it."""

    @property
    def machine(self) -> Machine: ...

    @property
    def cgroups(self) -> tuple[Path, ...]:
        """Those that were made for it, outermost first."""
        ...

    async def certificates(self) -> bytes:
        """Those of the stub's processor, for reports that it signs; b"" where hardware signs."""
        ...

    async def close(self) -> None:
        """Stops the machine and takes the rest away. Idempotent, bounded in time, raises nothing."""


@dataclass(frozen=True, slots=True)
class Ports:
    """All collaborators."""

    pod_config: Callable[[dict[str, str], RuntimeOptions], PodConfig]
    plug: Callable[[Path], Awaitable[Network]]
    launch: Callable[[Launch], Awaitable[RunningMachine]]
    layers: Callable[[str], Awaitable[Sequence[Layer]]]
    """The layers of a container's image, base first: the caller's to close."""
    scratch: Callable[[], int]
    """A new sparse file for the pod's scratch, without a name: the descriptor is the caller's."""
    certificates: Callable[[], bytes]
    turn: Callable[[], AbstractAsyncContextManager[None]]
    """Inside it a pod may boot."""
    boot_deadline: float
    host_paths: HostPaths
    run_dir: Path
    """Of the pods' state; denials are kept beside."""
