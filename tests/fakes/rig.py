"""A shim's task service in this process: scripted client on one side, fake guest and recording containerd on others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import betterproto
from betterproto.lib.google.protobuf import Any, Empty

from parma_api.channel.stream import ByteStream, stream_pair
from parma_api.gen.containerd import events
from parma_api.gen.containerd.services.events.ttrpc.v1 import EventsBase, ForwardRequest
from parma_api.gen.containerd.task import v2
from parma_api.status import UnavailableError
from parma_api.ttrpc.client import TtrpcClient
from parma_api.ttrpc.server import TtrpcServer
from parma_shim.task.control import ControlService
from parma_shim.task.events import Publisher
from parma_shim.task.group import Group
from parma_shim.task.service import TaskService, TaskServiceV3
from tests.fakes.guest import Behaviour, FakeMachine
from tests.fakes.ports import FakeImages, fake_ports

NAMESPACES = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"


def document(*arguments: str, terminal: bool = False, **more: object) -> dict[str, object]:
    """An OCI document as `ctr` writes it, as far as anybody looks."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": list(arguments),
            "env": [PATH],
            "cwd": "/",
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_CHOWN"]},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}
        ],
        "linux": {"namespaces": NAMESPACES, "maskedPaths": ["/proc/kcore"], "cgroupsPath": "/t/x"},
        **more,
    }


@dataclass
class EventSink(EventsBase):
    """containerd's event service; `gates` makes it fail first."""

    received: list[tuple[str, betterproto.Message]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    refuse_dials: int = 0

    async def forward(self, forward_request: ForwardRequest) -> Empty:
        envelope = forward_request.envelope
        name = envelope.event.type_url.rpartition(".")[2]
        kind = getattr(events, {"TaskOOM": "TaskOom"}.get(name, name))
        self.received.append((envelope.topic, kind().parse(envelope.event.value)))
        self.changed.set()
        return Empty()

    def topics(self) -> list[str]:
        """Without the prefix."""
        return [topic.removeprefix("/tasks/") for topic, _ in self.received]

    async def until(self, topic: str, count: int = 1) -> betterproto.Message:
        """The event of that topic, once so many came."""
        async with asyncio.timeout(10):
            while len(found := [x for t, x in self.received if t == f"/tasks/{topic}"]) < count:
                self.changed.clear()
                await self.changed.wait()
        return found[count - 1]


@dataclass
class Rig:
    """One shim."""

    folder: Path
    behaviour: Behaviour
    images: FakeImages
    sink: EventSink
    group: Group
    task: v2.TaskStub
    shutdowns: list[None]
    server: TtrpcServer
    fifos: list[int] = field(default_factory=list)

    @property
    def machine(self) -> FakeMachine:
        """The latest."""
        return self.behaviour.machines[-1]

    def bundle(self, name: str, spec: dict[str, object]) -> str:
        """A bundle's folder with that document."""
        folder = self.folder / "bundles" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(spec))
        return str(folder)

    async def create(self, name: str, *arguments: str, **more: object) -> v2.CreateTaskResponse:
        """Create with null streams unless `stdin`, `stdout`, `stderr`, `terminal` say otherwise."""
        streams = {k: more.pop(k) for k in ("stdin", "stdout", "stderr", "terminal") if k in more}
        spec = document(*arguments, terminal=bool(streams.get("terminal")), **more)
        request = v2.CreateTaskRequest(id=name, bundle=self.bundle(name, spec), **streams)
        return await self.task.create(request)

    async def run(self, name: str, *arguments: str, **more: object) -> None:
        """Create and Start."""
        await self.create(name, *arguments, **more)
        await self.task.start(v2.StartRequest(id=name))

    async def finish(self, name: str, exec_id: str = "") -> int:
        """Wait and Delete; result: the exit status."""
        waited = await self.task.wait(v2.WaitRequest(id=name, exec_id=exec_id))
        deleted = await self.task.delete(v2.DeleteRequest(id=name, exec_id=exec_id))
        assert deleted.exit_status == waited.exit_status
        return waited.exit_status

    async def exec(self, name: str, exec_id: str, *arguments: str, **more: object) -> None:
        """Exec, not started."""
        process = {"args": list(arguments), "cwd": "/", "env": [PATH], "user": {"uid": 0, "gid": 0}}
        spec = Any(type_url=SPEC_TYPE, value=json.dumps(process).encode())
        await self.task.exec(v2.ExecProcessRequest(id=name, exec_id=exec_id, spec=spec, **more))

    async def connect(self) -> tuple[v2.TaskStub, TtrpcClient, asyncio.Task[None]]:
        """One more connection."""
        ours, theirs = stream_pair()
        serving = asyncio.create_task(self.server.serve(theirs))
        client = TtrpcClient(ours)
        return v2.TaskStub(client), client, serving

    def fifo(self, name: str) -> Path:
        """A new FIFO in the folder."""
        path = self.folder / name
        os.mkfifo(path)
        return path


@contextlib.asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    """A shim, and all of it ended."""
    behaviour, images, sink = Behaviour(), FakeImages(), EventSink()
    events_server = TtrpcServer([sink])
    serving: set[asyncio.Task[None]] = set()

    async def dial() -> ByteStream:
        if sink.refuse_dials > 0:
            sink.refuse_dials -= 1
            raise UnavailableError("containerd is down")
        ours, theirs = stream_pair()
        serving.add(asyncio.create_task(events_server.serve(theirs)))
        return ours

    shutdowns: list[None] = []
    publisher = Publisher(dial, "test", first_wait=0.01)
    ports = fake_ports(folder / "run", behaviour, images)
    group = Group("test", ports, publisher, folder, lambda running, netns: None)
    service = TaskService(group, publisher, lambda: shutdowns.append(None))
    server = TtrpcServer([service, TaskServiceV3(service), ControlService(group)])
    publishing = asyncio.create_task(publisher.run())
    ours, theirs = stream_pair()
    serving.add(asyncio.create_task(server.serve(theirs)))
    client = TtrpcClient(ours)
    made = Rig(folder, behaviour, images, sink, group, v2.TaskStub(client), shutdowns, server)
    try:
        yield made
    finally:
        await group.stop()
        await client.close()
        publishing.cancel()
        await asyncio.wait((publishing,))
        events_server.close()
        server.close()
        await asyncio.wait(serving)


async def read_all(path: Path) -> bytes:
    """A FIFO's bytes until its end, in a thread that waits for the writer as any client does."""
    return await asyncio.to_thread(path.read_bytes)
