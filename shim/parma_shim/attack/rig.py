"""A utility VM under an attacker's hands: launched as the shim launches it, then spoken to as no shim would."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import betterproto
from grpclib.const import Cardinality

from parma_api.channel.mux import Mux
from parma_api.channel.session import Side
from parma_api.channel.stream import ByteStream, StreamClosedError
from parma_api.gen.parma.agent import v1
from parma_api.launch import VmSize
from parma_api.status import ApiError, Code
from parma_api.ttrpc.client import TtrpcClient
from parma_api.volumes import layer_path, pod_directory, root_path, scratch_path
from parma_shim.attack.documents import Json, document, encode, process
from parma_shim.attack.layers import LayerFile
from parma_shim.attack.outcome import AttackError
from parma_shim.attack.policy import IDLE
from parma_shim.config import Config
from parma_shim.podconfig import PodConfig, PolicyText
from parma_shim.sandbox.machines import HostMachine, Launcher
from parma_shim.sandbox.ports import Launch
from parma_shim.vmm.disks import DiskAccess, ScsiAddress

R = TypeVar("R", bound=betterproto.Message)

POD = "ad" * 32
_SERVICE = "parma.agent.v1.Agent"
MEMORY_MIB = 768
CALL_SECONDS = 90.0
"""For one call: a guest under TCG on a busy machine is slow, and mke2fs takes its time."""
BOOT_ATTEMPTS = 2


@dataclass(slots=True)
class Rig:
    """One VM and its agent. Calls raise what the agent answers."""

    running: HostMachine
    mux: Mux
    agent: v1.AgentStub
    client: TtrpcClient
    policy: bytes
    folder: Path
    scratch: Path | None = None
    _disks: dict[str, ScsiAddress] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    # Names

    def new_id(self) -> str:
        """A container id that nobody has used."""
        return f"{next(self._numbers):064x}"

    def new_target(self) -> str:
        """A place for a layer that nobody has used."""
        return layer_path(next(self._numbers))

    def console(self) -> str:
        """The end of the guest's console."""
        return self.running.machine.console_tail()

    # Policy and state

    async def set_policy(self, text: bytes) -> v1.SetPolicyResponse:
        """Hands the agent a policy."""
        return await self.agent.set_policy(v1.SetPolicyRequest(policy=text))

    async def health(self) -> v1.HealthResponse:
        """What the guest says it is."""
        return await self.agent.health(v1.HealthRequest())

    async def require_stance(self, stance: v1.Stance) -> None:
        """After a refusal nothing must have changed. Raises AttackError."""
        found = (await self.health()).stance
        if found != stance:
            raise AttackError(f"the agent stands at {v1.Stance(found).name}, not at {stance.name}")

    async def require_no_process(self, container: str, exec_id: str = "") -> None:
        """A refused call must have left no process behind. Raises AttackError."""
        request = v1.WaitProcessRequest(container_id=container, exec_id=exec_id)
        try:
            await self.agent.wait_process(request, timeout=CALL_SECONDS)
        except ApiError as error:
            if error.code is Code.NOT_FOUND:
                return
            raise
        raise AttackError(f"a process of {container[-6:]} exists, though it was refused")

    # Disks

    async def attach(self, path: Path, access: DiskAccess = DiskAccess.READ_ONLY) -> ScsiAddress:
        """Plugs a file in."""
        mode = os.O_RDONLY if access is DiskAccess.READ_ONLY else os.O_RDWR
        fd = os.open(path, mode | os.O_CLOEXEC)
        try:
            return await self.running.machine.attach_disk(fd, access=access)
        finally:
            os.close(fd)

    async def mount_layer(self, layer: LayerFile, target: str) -> str:
        """Plugs a layer in if it is not, and asks for it at `target`; the root hash that the agent tells."""
        name = str(layer.path)
        if name not in self._disks:
            self._disks[name] = await self.attach(layer.path)
        return await self.mount_at(self._disks[name], target)

    async def mount_at(self, address: ScsiAddress, target: str) -> str:
        """Asks for the layer at an address."""
        device = v1.ScsiAddress(controller=address.controller, lun=address.lun)
        request = v1.MountLayerRequest(device=device, target=target)
        return (await self.agent.mount_layer(request, timeout=CALL_SECONDS)).root_hash

    async def unmount_layer(self, target: str) -> None:
        """Asks for a layer's end."""
        await self.agent.unmount_layer(v1.UnmountLayerRequest(target=target))

    async def mount_scratch(self, address: ScsiAddress, **changed: object) -> None:
        """Asks for the pod's scratch; `changed` replaces fields."""
        request = v1.MountScratchRequest(
            device=v1.ScsiAddress(controller=address.controller, lun=address.lun),
            target=pod_directory(POD),
            encrypted=True,
            filesystem="ext4",
        )
        await self.agent.mount_scratch(_changed(request, changed), timeout=CALL_SECONDS)

    # Containers

    async def mount_overlay(
        self, container: str, layers_top_first: Sequence[str], **changed: object
    ) -> None:
        """Asks for a container's root; `changed` replaces fields."""
        request = v1.MountOverlayRequest(
            container_id=container,
            layer_paths=list(layers_top_first),
            target=root_path(container),
            scratch_path=scratch_path(POD, container),
        )
        await self.agent.mount_overlay(_changed(request, changed), timeout=CALL_SECONDS)

    async def unmount_overlay(self, container: str) -> None:
        """Asks for its end."""
        request = v1.UnmountOverlayRequest(container_id=container, target=root_path(container))
        await self.agent.unmount_overlay(request, timeout=CALL_SECONDS)

    async def create(
        self,
        container: str,
        args: tuple[str, ...] = IDLE,
        spec: Json | None = None,
        **changed: object,
    ) -> None:
        """Asks for a container; `spec` instead of the ordinary document, `changed` replaces fields."""
        request = v1.CreateContainerRequest(
            container_id=container,
            oci_spec=encode(spec if spec is not None else document(container, args)),
            stdio=v1.Stdio(),
        )
        await self.agent.create_container(_changed(request, changed), timeout=CALL_SECONDS)

    async def start(self, container: str) -> None:
        """Runs it."""
        request = v1.StartContainerRequest(container_id=container)
        await self.agent.start_container(request, timeout=CALL_SECONDS)

    async def execute(
        self, container: str, exec_id: str, args: tuple[str, ...], **changed: object
    ) -> None:
        """Asks for a further process; `changed` replaces members of the process object."""
        request = v1.ExecProcessRequest(
            container_id=container,
            exec_id=exec_id,
            oci_process=encode(process(args, **changed)),
            stdio=v1.Stdio(),
        )
        await self.agent.exec_process(request, timeout=CALL_SECONDS)

    async def wait(self, container: str, exec_id: str = "") -> int:
        """A process's exit status."""
        request = v1.WaitProcessRequest(container_id=container, exec_id=exec_id)
        return (await self.agent.wait_process(request, timeout=CALL_SECONDS)).exit_status

    async def execute_and_wait(
        self, container: str, args: tuple[str, ...], **changed: object
    ) -> int:
        """A further process's exit status."""
        exec_id = f"e{next(self._numbers)}"
        await self.execute(container, exec_id, args, **changed)
        return await self.wait(container, exec_id)

    async def remove(self, container: str) -> None:
        """Ends a container and takes its root away."""
        request = v1.ShutdownContainerRequest(container_id=container)
        await self.agent.shutdown_container(request, timeout=CALL_SECONDS)
        await self.unmount_overlay(container)

    # The channel

    def open_stream(self) -> tuple[int, ByteStream]:
        """A stream's number and our end of it."""
        number = self.mux.next_id()
        return number, self.mux.open(number)

    async def raw_call(self, method: str, payload: bytes) -> None:
        """A call whose request is `payload`, whatever that is."""
        route = f"/{_SERVICE}/{method}"
        request = cast("betterproto.Message", _Bytes(payload))
        async with self.client.request(
            route,
            Cardinality.UNARY_UNARY,
            v1.HealthRequest,
            v1.HealthResponse,
            timeout=CALL_SECONDS,
        ) as call:
            await call.send_message(request, end=True)
            await call.recv_message()


@dataclass(frozen=True, slots=True)
class _Bytes:
    """Stands where a message is expected, and is sent as it is."""

    payload: bytes

    def __bytes__(self) -> bytes:
        return self.payload


@asynccontextmanager
async def boot(
    config: Config,
    environment: Mapping[str, str],
    policy: bytes,
    *,
    attempts: int = BOOT_ATTEMPTS,
    ended: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Rig]:
    """A VM launched with the HOST_DATA of `policy`, whose agent has answered; it has no policy yet.

    Raises what launching raises, and BootFailureError; `ended` hears the console of a VM that did not come up.
    """
    launcher = Launcher(config, environment)
    async with contextlib.AsyncExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="parma-attack-")))
        pod = PodConfig(PolicyText(policy, "parma attack"), (), VmSize.MEDIUM, MEMORY_MIB)
        launch = Launch(pod, None, "", folder)
        attempt = 1
        while True:
            trial = await _start(undo, launcher, launch)
            try:
                await trial.running.machine.until_answer(trial.health(), config.boot_deadline)
                break
            except ApiError as error:
                ended(trial.console())
                if attempt == attempts or error.code is not Code.UNAVAILABLE:
                    raise
                attempt += 1
        yield trial


async def _start(undo: contextlib.AsyncExitStack, launcher: Launcher, launch: Launch) -> Rig:
    running = await launcher(launch)
    undo.push_async_callback(running.close)
    mux = Mux(running.machine.channel, side=Side.HOST)
    moving = asyncio.create_task(mux.run(), name="channel")
    client = TtrpcClient(mux.control)
    undo.push_async_callback(_end_channel, mux, moving, client)
    return Rig(running, mux, v1.AgentStub(client), client, launch.pod.policy.text, launch.run_dir)


async def _end_channel(mux: Mux, moving: asyncio.Task[None], client: TtrpcClient) -> None:
    mux.abort()
    moving.cancel()
    await asyncio.wait((moving,))
    if not moving.cancelled():
        moving.exception()
    with contextlib.suppress(StreamClosedError):
        await client.close()


def _changed(request: R, changed: Mapping[str, object]) -> R:
    for name, value in changed.items():
        setattr(request, name, value)
    return request
