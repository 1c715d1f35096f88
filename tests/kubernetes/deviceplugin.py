"""A kubelet device plugin that hands out /dev/null: how devices come to a pod (pkg/apis/deviceplugin/v1beta1)."""

# ruff: noqa: RUF009 (betterproto declares its fields so)

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import betterproto
import grpclib
from grpclib.client import Channel
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

RESOURCE = "parma.example/null"
_SERVICE = "/v1beta1.DevicePlugin"
_PROJECT = Path(__file__).resolve().parent.parent.parent


@dataclass(eq=False, repr=False)
class Empty(betterproto.Message):
    pass


@dataclass(eq=False, repr=False)
class RegisterRequest(betterproto.Message):
    version: str = betterproto.string_field(1)
    endpoint: str = betterproto.string_field(2)
    resource_name: str = betterproto.string_field(3)


@dataclass(eq=False, repr=False)
class Device(betterproto.Message):
    id: str = betterproto.string_field(1)
    health: str = betterproto.string_field(2)


@dataclass(eq=False, repr=False)
class Devices(betterproto.Message):
    devices: list[Device] = betterproto.message_field(1)


@dataclass(eq=False, repr=False)
class DeviceSpec(betterproto.Message):
    container_path: str = betterproto.string_field(1)
    host_path: str = betterproto.string_field(2)
    permissions: str = betterproto.string_field(3)


@dataclass(eq=False, repr=False)
class ContainerAllocation(betterproto.Message):
    devices: list[DeviceSpec] = betterproto.message_field(3)


@dataclass(eq=False, repr=False)
class Allocation(betterproto.Message):
    container_responses: list[ContainerAllocation] = betterproto.message_field(1)


class Plugin:
    """One device, always healthy, given to whoever asks."""

    def __mapping__(self) -> dict[str, Handler]:
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"{_SERVICE}/GetDevicePluginOptions": Handler(self._nothing, unary, Empty, Empty),
            f"{_SERVICE}/PreStartContainer": Handler(self._nothing, unary, Empty, Empty),
            f"{_SERVICE}/ListAndWatch": Handler(self._list, stream, Empty, Devices),
            f"{_SERVICE}/Allocate": Handler(self._allocate, unary, Empty, Allocation),
        }

    async def _nothing(self, stream: Stream[Empty, Empty]) -> None:
        await stream.recv_message()
        await stream.send_message(Empty())

    async def _list(self, stream: Stream[Empty, Devices]) -> None:
        await stream.recv_message()
        await stream.send_message(Devices([Device("one", "Healthy")]))
        await asyncio.Event().wait()

    async def _allocate(self, stream: Stream[Empty, Allocation]) -> None:
        await stream.recv_message()
        null = DeviceSpec("/dev/given", "/dev/null", "rw")
        await stream.send_message(Allocation([ContainerAllocation([null])]))


async def _serve(folder: Path) -> None:
    """Until standard input ends; says so when the kubelet has taken it."""
    socket = folder / "parma-test.sock"
    socket.unlink(missing_ok=True)
    server = Server([Plugin()])
    await server.start(path=str(socket))
    try:
        async with Channel(path=str(folder / "kubelet.sock")) as channel:
            call = grpclib.client.UnaryUnaryMethod(
                channel, "/v1beta1.Registration/Register", RegisterRequest, Empty
            )
            await call(RegisterRequest("v1beta1", socket.name, RESOURCE))
        print("registered", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        server.close()
        await server.wait_closed()
        socket.unlink(missing_ok=True)


@contextmanager
def device_plugin(root: Path) -> Iterator[None]:
    """Registered with the kubelet of the node whose file system is at `root`; a process of its own serves it."""
    folder = root / "var/lib/kubelet/device-plugins"
    command = [sys.executable, "-m", "tests.kubernetes.deviceplugin", str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_PROJECT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            assert said == "registered\n", "the kubelet does not take the device plugin"
            yield
        finally:
            process.stdin.close()
            process.wait(20)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
