"""The same agent with real crun, real bind mounts and a busybox image: what the scripted runtime cannot show."""

# ruff: noqa: ASYNC240 (a test may look at files while its loop waits)

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parma_api.channel.stream import ByteStream
from parma_api.gen.parma.agent.v1 import (
    FileEntry,
    PutFilesRequest,
    ResizeTerminalRequest,
    ShutdownContainerRequest,
    SignalProcessRequest,
    StartContainerRequest,
    Stdio,
    UnmountOverlayRequest,
    WaitProcessRequest,
)
from parma_api.status import ApiError
from parma_api.volumes import pod_directory, root_path
from parma_guest.agent.sources import Sources
from tests.fixtures.agent import agent_in_process, short_directory
from tests.fixtures.crun import OwnNamespaces, make_crun, require_root
from tests.fixtures.group import POD, Driver, container_id, description, oci_document, policy
from tests.fixtures.kernel import FakeNetwork

ONE = container_id(1)
SHELL = ("/bin/sh",)
PROBES = (
    ("/bin/sh", "-c", "exit 7"),
    ("/bin/sh", "-c", "exec cat /etc/hostname /data/note"),
    ("/bin/sh", "-c", "ls /; echo $UVM_SECURITY_CONTEXT_DIR; cat $UVM_SECURITY_CONTEXT_DIR/*"),
    ("/bin/sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done"),
    ("/bin/sh", "-c", "echo late; sleep 0.1; head -c 3000000 /dev/zero"),
    ("/bin/missing",),
)
TEXT = policy(
    description(
        command=list(SHELL),
        exec_processes=[{"command": list(probe), "signals": [15]} for probe in PROBES],
    )
)


@pytest.fixture
async def ready() -> AsyncIterator[Driver]:
    require_root()
    busybox = shutil.which("busybox")
    assert busybox is not None
    program = Path(busybox).read_bytes()
    with short_directory() as folder:
        namespaces = OwnNamespaces(folder / "ns")
        try:
            async with agent_in_process(
                TEXT,
                make_runtime=make_crun,
                network=FakeNetwork(namespaces.namespaces),
                sources=Sources,
            ) as rig:
                names = ("sh", "cat", "ls", "sleep", "head")
                rig.storage.image = {f"bin/{name}": program for name in names}
                driver = Driver(rig, TEXT)
                await driver.setup()
                yield driver
        finally:
            namespaces.close()


async def read_all(stream: ByteStream) -> bytes:
    data = bytearray()
    while part := await stream.read():
        data += part
    return bytes(data)


def document(**changed: object) -> dict[str, object]:
    made = oci_document(ONE, SHELL)
    made["mounts"] = [m for m in made["mounts"] if m["type"] != "sysfs"]
    made["mounts"].append(
        {
            "destination": "/data",
            "type": "bind",
            "source": "sandbox:///data/x",
            "options": ["rbind", "rshared", "rw"],
        }
    )
    made["process"] |= changed
    return made


async def run_shell(ready: Driver) -> tuple[ByteStream, ByteStream]:
    (stdin, to_shell), (stdout, output) = ready.rig.open_stream(), ready.rig.open_stream()
    await ready.run(1, document(), stdio=Stdio(stdin=stdin, stdout=stdout))
    return to_shell, output


async def wait(ready: Driver, exec_id: str = "") -> int:
    request = WaitProcessRequest(container_id=ONE, exec_id=exec_id)
    return (await ready.rig.client.wait_process(request)).exit_status


async def test_a_shell_lives_and_ends_with_its_input(ready: Driver) -> None:
    to_shell, output = await run_shell(ready)
    await to_shell.write(b"echo $((6*7))\nexit 3\n")
    assert await read_all(output) == b"42\n"
    assert await wait(ready) == 3
    client = ready.rig.client
    await client.shutdown_container(ShutdownContainerRequest(container_id=ONE))
    await client.unmount_overlay(UnmountOverlayRequest(container_id=ONE, target=root_path(ONE)))


async def test_files_by_content_and_scratch_are_seen(ready: Driver) -> None:
    note = FileEntry(path="sandboxMounts/data/x/note", mode=0o644, content=b"note\n")
    name = FileEntry(path="hostname", mode=0o644, content=b"web-0\n")
    await ready.rig.client.put_files(PutFilesRequest(entries=[note, name]))
    await run_shell(ready)
    stdout, output = ready.rig.open_stream()
    await ready.execute(ONE, PROBES[1], stdio=Stdio(stdout=stdout))
    assert await read_all(output) == b"web-0\nnote\n"
    pins = Path(ready.rig.layout.run, "pins")
    assert not pins.exists() or list(pins.iterdir()) == []


async def test_a_link_in_a_sources_place_is_refused(ready: Driver) -> None:
    """What a container can do to the pod's directory, which it shares with the next one."""
    home = Path(ready.rig.layout.real(pod_directory(POD)))
    (home / "sandboxMounts/data").mkdir(parents=True)
    (home / "sandboxMounts/data/x").symlink_to("/etc")
    await ready.mount_overlay(ONE)
    with pytest.raises(ApiError, match="neither a directory nor a file"):
        await ready.create(ONE, document())
    assert "started" not in ready.rig.gate.metadata().collections


async def test_the_security_context_inside(ready: Driver) -> None:
    await run_shell(ready)
    stdout, output = ready.rig.open_stream()
    await ready.execute(ONE, PROBES[2], stdio=Stdio(stdout=stdout))
    seen = (await read_all(output)).decode().splitlines()
    directory = next(line for line in seen if line.startswith("security-context-"))
    assert f"/{directory}" in seen
    import base64

    assert hashlib.sha256(base64.b64decode(seen[-1])).digest() == ready.rig.processor.host_data


async def test_exit_statuses_and_signals_of_execs(ready: Driver) -> None:
    await run_shell(ready)
    await ready.execute(ONE, PROBES[0], "e1")
    assert await wait(ready, "e1") == 7
    stdout, output = ready.rig.open_stream()
    await ready.execute(ONE, PROBES[3], "e2", stdio=Stdio(stdout=stdout))
    assert await output.read() == b"up\n"
    request = SignalProcessRequest(container_id=ONE, exec_id="e2", signal=15)
    await ready.rig.client.signal_process(request)
    assert await wait(ready, "e2") == 9
    with pytest.raises(ApiError, match="127"):
        await ready.execute(ONE, PROBES[5], "e3")


async def test_no_byte_is_lost_at_an_exit(ready: Driver) -> None:
    await run_shell(ready)
    stdout, output = ready.rig.open_stream()
    await ready.execute(ONE, PROBES[4], "e1", stdio=Stdio(stdout=stdout))
    received, status = await asyncio.gather(read_all(output), wait(ready, "e1"))
    assert (len(received), status) == (3_000_005, 0)


async def test_the_end_of_the_first_process_ends_the_others_first(ready: Driver) -> None:
    await run_shell(ready)
    stdout, output = ready.rig.open_stream()
    await ready.execute(ONE, PROBES[3], "e2", stdio=Stdio(stdout=stdout))
    assert await output.read() == b"up\n"
    order: list[str] = []

    async def note(exec_id: str) -> int:
        status = await wait(ready, exec_id)
        order.append(exec_id)
        return status

    waiting = asyncio.gather(note(""), note("e2"))
    await ready.rig.client.signal_process(SignalProcessRequest(container_id=ONE, signal=9))
    assert await waiting == [137, 137]
    assert order == ["e2", ""]


async def test_a_terminal(ready: Driver) -> None:
    (stdin, to_shell), (stdout, output) = ready.rig.open_stream(), ready.rig.open_stream()
    await ready.mount_overlay(ONE)
    await ready.create(
        ONE,
        document(terminal=True),
        stdio=Stdio(stdin=stdin, stdout=stdout),
        terminal_width=100,
        terminal_height=30,
    )
    await ready.rig.client.start_container(StartContainerRequest(container_id=ONE))
    resize = ResizeTerminalRequest(container_id=ONE, width=90, height=20)
    await ready.rig.client.resize_terminal(resize)
    await to_shell.write(b"echo $((40+2))\nexit 4\n")
    text = await read_all(output)
    assert b"42\r\n" in text
    assert await wait(ready) == 4


async def test_a_missing_program_fails_in_create(ready: Driver) -> None:
    ready.rig.storage.image = {"bin/other": b""}
    await ready.mount_overlay(ONE)
    with pytest.raises(ApiError, match="127"):
        await ready.create(ONE, document())
    with pytest.raises(ApiError, match="not found"):
        await wait(ready)
