"""A kubelet device plugin that hands out /dev/null: how devices come to a pod (pkg/apis/deviceplugin/v1beta1)."""

# ruff: noqa: RUF009 (betterproto declares its fields so)

from __future__ import annotations

import asyncio
import threading
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


async def _serve(folder: Path, ready: threading.Event, stop: asyncio.Event) -> None:
    socket = folder / "parma-test.sock"
    socket.unlink(missing_ok=True)
    server = Server([Plugin()])
    await server.start(path=str(socket))
    channel = Channel(path=str(folder / "kubelet.sock"))
    try:
        call = grpclib.client.UnaryUnaryMethod(
            channel, "/v1beta1.Registration/Register", RegisterRequest, Empty
        )
        await call(RegisterRequest("v1beta1", socket.name, RESOURCE))
        ready.set()
        await stop.wait()
    finally:
        channel.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.1)  # transports close in the loop's next turns
        socket.unlink(missing_ok=True)


@contextmanager
def device_plugin(root: Path) -> Iterator[None]:
    """Registered with the kubelet of the node whose file system is at `root`."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    folder = root / "var/lib/kubelet/device-plugins"
    thread = threading.Thread(
        target=loop.run_until_complete, args=(_serve(folder, ready, stop),), name="device-plugin"
    )
    thread.start()
    try:
        assert ready.wait(20), "the kubelet does not take the device plugin"
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
