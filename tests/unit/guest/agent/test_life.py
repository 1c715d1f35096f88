"""A group's life through the real channel, interceptor, gate and OPA."""

# ruff: noqa: ASYNC240 (a test may look at files while its loop waits)

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path

import pytest

from parma_api.channel.stream import ByteStream
from parma_api.gen.parma.agent.v1 import (
    DumpStacksRequest,
    ExecExternalRequest,
    FileEntry,
    FileEntryKind,
    ForwardPortRequest,
    HealthRequest,
    ListProcessesRequest,
    NextEventRequest,
    PauseGroupRequest,
    PutFilesRequest,
    ResizeTerminalRequest,
    Resources,
    ResumeGroupRequest,
    ShutdownContainerRequest,
    SignalProcessRequest,
    Stance,
    StartContainerRequest,
    StatsRequest,
    Stdio,
    UnmountLayerRequest,
    UnmountOverlayRequest,
    UnmountScratchRequest,
    UpdateResourcesRequest,
    WaitProcessRequest,
)
from parma_api.status import ApiError, Code
from parma_api.volumes import layer_path, pod_directory, root_path
from tests.fixtures.group import (
    COMMAND,
    POD,
    Driver,
    container_id,
    description,
    oci_document,
    policy,
)

ONE = container_id(1)


async def read_all(stream: ByteStream) -> bytes:
    data = bytearray()
    while part := await stream.read():
        data += part
    return bytes(data)


async def fails(awaitable: object, code: Code) -> str:
    with pytest.raises(ApiError) as caught:
        await awaitable  # type: ignore[misc]
    assert caught.value.code is code, caught.value.message
    return caught.value.message


async def test_from_deny_all_to_nothing_left(driver: Driver) -> None:
    client = driver.rig.client
    before = await client.health(HealthRequest())
    assert before.stance is Stance.DENY_ALL
    assert (before.variant, before.report_provider) == ("stub", "")
    await driver.setup()
    after = await client.health(HealthRequest())
    assert after.stance is Stance.POLICY
    assert after.report_provider == "fake"
    assert len(after.policy_sha256) == 64
    await driver.run()
    await client.signal_process(SignalProcessRequest(container_id=ONE, signal=15))
    ended = await client.wait_process(WaitProcessRequest(container_id=ONE))
    assert ended.exit_status == 143
    assert ended.exited_at_nsec > 0
    await client.shutdown_container(ShutdownContainerRequest(container_id=ONE))
    await client.unmount_overlay(UnmountOverlayRequest(container_id=ONE, target=root_path(ONE)))
    for number in (0, 1):
        await client.unmount_layer(UnmountLayerRequest(target=layer_path(number)))
    await client.unmount_scratch(UnmountScratchRequest(target=pod_directory(POD)))
    snapshot = driver.rig.storage.snapshot()
    assert (snapshot.devices, snapshot.rw_devices, snapshot.overlay_targets) == ({}, {}, {})
    assert driver.rig.agent.group.processes.containers() == ()


LOG_RULE = {
    "source": "sandbox:///logs/one/termination-log",
    "destination": "/dev/termination-log",
    "type": "bind",
    "options": ["rbind", "rprivate", "rw"],
}


@pytest.mark.parametrize(
    ("driver", "told"),
    [
        (policy(description(mounts=[LOG_RULE])), b"end of sandboxMounts/logs/one/termination-log"),
        (policy(description(mounts=[LOG_RULE], allow_stdio_access=False)), b""),
    ],
    indirect=["driver"],
    ids=["told", "withheld with the streams"],
)
async def test_the_end_of_a_termination_log(ready: Driver, told: bytes) -> None:
    document = oci_document(ONE)
    document["mounts"].append(LOG_RULE)
    await ready.run(1, document)
    client = ready.rig.client
    await client.signal_process(SignalProcessRequest(container_id=ONE, signal=15))
    ended = await client.wait_process(WaitProcessRequest(container_id=ONE))
    assert ended.termination_log == told


async def test_what_crun_gets_comes_from_the_decision(ready: Driver) -> None:
    await ready.run()
    document = ready.rig.runtime.documents[0]
    assert document["linux"]["cgroupsPath"] == f"/parma/{ONE}"
    assert document["process"]["args"] == list(COMMAND)
    binds = {m["destination"]: m["source"] for m in document["mounts"] if m["type"] == "bind"}
    assert binds["/etc/hosts"] == "/pins/hosts"
    assert ready.rig.sources.pinned == {}


async def test_the_security_context_directory(ready: Driver) -> None:
    await ready.run()
    env = ready.rig.runtime.documents[0]["process"]["env"]
    name = next(entry.partition("=")[2] for entry in env if entry.startswith("UVM_SECURITY"))
    directory = Path(ready.rig.layout.root(ONE) + name)  # type: ignore[arg-type]
    assert directory.name.startswith("security-context-")
    assert [path.name for path in directory.iterdir()] == ["security-policy-base64"]
    await ready.execute(ONE)
    assert env[-1] in ready.rig.runtime.documents[1]["env"]


async def test_streams_and_half_close(driver: Driver) -> None:
    driver.text = policy(description(command=["cat"]))
    driver.rig.processor.host_data = hashlib.sha256(driver.text).digest()
    await driver.setup()
    (stdin, to_child), (stdout, output) = driver.rig.open_stream(), driver.rig.open_stream()
    await driver.run(1, oci_document(ONE, ("cat",)), stdio=Stdio(stdin=stdin, stdout=stdout))
    sent = os.urandom(2 << 20)

    async def send() -> None:
        for at in range(0, len(sent), 65536):
            await to_child.write(sent[at : at + 65536])
        await to_child.finish()

    received, _ = await asyncio.gather(read_all(output), send())
    assert received == sent
    ended = await driver.rig.client.wait_process(WaitProcessRequest(container_id=ONE))
    assert ended.exit_status == 0


@pytest.mark.parametrize("driver", [policy(description(allow_stdio_access=False))], indirect=True)
async def test_withheld_streams(ready: Driver) -> None:
    stdout, output = ready.rig.open_stream()
    await ready.run(stdio=Stdio(stdout=stdout))
    assert await read_all(output) == b"parma: stdout withheld by policy\n"
    message = await fails(ready.execute(ONE, terminal=True), Code.FAILED_PRECONDITION)
    assert "terminal is refused" in message
    probe, output = ready.rig.open_stream()
    await ready.execute(ONE, exec_id="e2", stdio=Stdio(stdout=probe))
    assert b"withheld" in await read_all(output)


async def test_exec_and_its_exit(ready: Driver) -> None:
    await ready.run()
    stdout, output = ready.rig.open_stream()
    pid = await ready.execute(ONE, stdio=Stdio(stdout=stdout))
    assert pid > 0
    assert await read_all(output) == b"probe\n"
    ended = await ready.rig.client.wait_process(WaitProcessRequest(container_id=ONE, exec_id="e1"))
    assert ended.exit_status == 0
    await fails(ready.execute(ONE), Code.ALREADY_EXISTS)


@pytest.mark.parametrize(
    "driver",
    [policy(description(exec_processes=[{"command": ["sleep"], "signals": []}]))],
    indirect=True,
)
async def test_ends_of_further_processes_are_told_first(ready: Driver) -> None:
    await ready.run()
    await ready.execute(ONE, ("sleep",))
    client, order = ready.rig.client, list[str]()

    async def wait(exec_id: str) -> None:
        await client.wait_process(WaitProcessRequest(container_id=ONE, exec_id=exec_id))
        order.append(exec_id)

    waiting = asyncio.gather(wait(""), wait("e1"), wait(""))
    await client.signal_process(SignalProcessRequest(container_id=ONE, signal=9))
    await waiting
    assert order == ["e1", "", ""]
    await wait("")  # and again, until it is forgotten
    await client.shutdown_container(ShutdownContainerRequest(container_id=ONE))
    await fails(wait(""), Code.NOT_FOUND)


async def test_start_is_once(ready: Driver) -> None:
    await ready.run()
    request = StartContainerRequest(container_id=ONE)
    await fails(ready.rig.client.start_container(request), Code.FAILED_PRECONDITION)


async def test_the_network_closes_with_the_first_container(ready: Driver) -> None:
    assert not ready.rig.network.closed
    await ready.run()
    assert ready.rig.network.closed


async def test_signals_after_the_end_are_not_found(ready: Driver) -> None:
    await ready.run()
    client = ready.rig.client
    kill = SignalProcessRequest(container_id=ONE, signal=9, all=True)
    await client.signal_process(kill)
    await client.wait_process(WaitProcessRequest(container_id=ONE))
    await fails(client.signal_process(kill), Code.NOT_FOUND)


async def test_shutdown_can_be_repeated(ready: Driver) -> None:
    await ready.run()
    for _ in range(2):
        await ready.rig.client.shutdown_container(ShutdownContainerRequest(container_id=ONE))
    assert ready.rig.runtime.calls.count(("delete", ONE)) == 1


async def test_a_container_that_was_never_started_can_be_shut_down(ready: Driver) -> None:
    await ready.mount_overlay(ONE)
    await ready.create(ONE)
    await ready.rig.client.shutdown_container(ShutdownContainerRequest(container_id=ONE))
    await ready.rig.client.unmount_overlay(
        UnmountOverlayRequest(container_id=ONE, target=root_path(ONE))
    )


async def test_pause_and_resume(ready: Driver) -> None:
    await ready.run()
    await ready.rig.client.pause_group(PauseGroupRequest())
    assert ready.rig.freezer.frozen
    assert "paused" in await fails(ready.execute(ONE), Code.FAILED_PRECONDITION)
    await ready.rig.client.resume_group(ResumeGroupRequest())
    assert not ready.rig.freezer.frozen
    await ready.execute(ONE)


async def test_files_of_the_pod(ready: Driver) -> None:
    await ready.rig.client.put_files(
        PutFilesRequest(
            entries=[
                FileEntry(path="hosts", mode=0o644, content=b"127.0.0.1 here\n"),
                FileEntry(path="sandboxMounts/data", kind=FileEntryKind.KIND_DIRECTORY, mode=0o755),
            ]
        )
    )
    home = Path(ready.rig.layout.real(pod_directory(POD)))
    assert (home / "hosts").read_text() == "127.0.0.1 here\n"
    assert (home / "sandboxMounts/data").is_dir()
    for path in ("../x", "scratch/x", "/etc/passwd", "sandboxMounts/../../x"):
        entry = FileEntry(path=path, mode=0o644, content=b"x")
        await fails(
            ready.rig.client.put_files(PutFilesRequest(entries=[entry])), Code.INVALID_ARGUMENT
        )


async def test_files_need_scratch(driver: Driver) -> None:
    await driver.set_policy()
    entry = FileEntry(path="hosts", mode=0o644, content=b"x")
    request = PutFilesRequest(entries=[entry])
    await fails(driver.rig.client.put_files(request), Code.FAILED_PRECONDITION)


async def test_a_judged_mount_is_pinned(ready: Driver) -> None:
    document = oci_document(ONE)
    document["mounts"].append(
        {
            "destination": "/data",
            "type": "bind",
            "source": "sandbox:///data/x",
            "options": ["rbind", "rshared", "rw"],
        }
    )
    await ready.run(1, document)
    built = ready.rig.runtime.documents[0]["mounts"]
    assert {
        "destination": "/data",
        "type": "bind",
        "source": "/pins/sandboxMounts/data/x",
        "options": ["rbind", "rslave", "rw"],
    } in built


async def test_resources_are_bounded(ready: Driver) -> None:
    await ready.run()
    wanted = Resources(memory_limit=1 << 62, cpu_shares=2, pids_limit=7, cpuset_cpus="0-999")
    request = UpdateResourcesRequest(container_id=ONE, resources=wanted)
    await ready.rig.client.update_resources(request)
    (limits,) = ready.rig.runtime.cgroup(ONE).applied  # type: ignore[arg-type]
    assert limits.memory_max is not None
    assert limits.memory_max < 1 << 50
    assert (limits.cpu_weight, limits.pids_max) == (1, 7)
    unknown = UpdateResourcesRequest(container_id=container_id(2), resources=wanted)
    await fails(ready.rig.client.update_resources(unknown), Code.NOT_FOUND)


async def test_what_may_be_seen(ready: Driver) -> None:
    await ready.run()
    listed = await ready.rig.client.list_processes(ListProcessesRequest(container_id=ONE))
    assert len(listed.pids) == 1
    stats = await ready.rig.client.stats(StatsRequest(container_id=ONE))
    assert stats.memory.usage == 0
    request = StatsRequest(container_id=container_id(9))
    await fails(ready.rig.client.stats(request), Code.NOT_FOUND)


@pytest.mark.parametrize("driver", [policy(allow_dump_stacks=True)], indirect=True)
async def test_stacks(ready: Driver) -> None:
    dump = await ready.rig.client.dump_stacks(DumpStacksRequest())
    assert "task" in dump.stacks


EXTERNAL = {
    "command": ["sh", "-c", "pwd; echo $A"],
    "env_rules": [{"pattern": "A=b", "strategy": "string", "required": False}],
    "working_dir": "/usr",
    "allow_stdio_access": True,
}


@pytest.mark.parametrize("driver", [policy(external_processes=[EXTERNAL])], indirect=True)
async def test_processes_of_the_machine(ready: Driver) -> None:
    stdout, output = ready.rig.open_stream()
    request = ExecExternalRequest(
        exec_id="x1",
        args=EXTERNAL["command"],  # type: ignore[arg-type]
        env=["A=b"],
        working_dir="/usr",
        stdio=Stdio(stdout=stdout),
    )
    await ready.rig.client.exec_external(request)
    assert await read_all(output) == b"/usr\nb\n"
    ended = await ready.rig.client.wait_process(WaitProcessRequest(exec_id="x1"))
    assert ended.exit_status == 0
    request.args = ["sh"]
    request.exec_id = "x2"
    await fails(ready.rig.client.exec_external(request), Code.PERMISSION_DENIED)


@pytest.mark.parametrize("driver", [policy(allow_port_forward=[0])], indirect=True)
async def test_port_forward_is_judged(ready: Driver) -> None:
    stream, _ = ready.rig.open_stream()
    request = ForwardPortRequest(port=80, stream=stream)
    message = await fails(ready.rig.client.forward_port(request), Code.PERMISSION_DENIED)
    assert "port.not_allowed" in message


async def test_port_forward() -> None:
    from tests.fixtures.agent import agent_in_process

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.read(100))
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    text = policy(allow_port_forward=[port])
    async with server, agent_in_process(text) as rig:
        ready = Driver(rig, text)
        await ready.setup()
        number, stream = rig.open_stream()
        await rig.client.forward_port(ForwardPortRequest(port=port, stream=number))
        await stream.write(b"you")
        assert await read_all(stream) == b"hello you"
        await stream.finish()


async def test_events(ready: Driver) -> None:
    waiting = asyncio.ensure_future(ready.rig.client.next_event(NextEventRequest()))
    await ready.rig.client.health(HealthRequest())
    ready.rig.agent.group.events.out_of_memory(ONE)
    first = await waiting
    assert (first.sequence, first.oom.container_id) == (1, ONE)
    ready.rig.agent.group.events.out_of_memory(ONE)
    assert (await ready.rig.client.next_event(NextEventRequest(after=1))).sequence == 2


async def test_resize_without_a_terminal_is_fine(ready: Driver) -> None:
    await ready.run()
    request = ResizeTerminalRequest(container_id=ONE, width=80, height=25)
    await ready.rig.client.resize_terminal(request)
    request.width = 70000
    await fails(ready.rig.client.resize_terminal(request), Code.INVALID_ARGUMENT)
    request = ResizeTerminalRequest(container_id=ONE, exec_id="none", width=1, height=1)
    await fails(ready.rig.client.resize_terminal(request), Code.NOT_FOUND)


async def test_every_decision_is_in_the_transcript(ready: Driver) -> None:
    from parma_guest.agent.transcript import replay

    await ready.run()
    transcript = ready.rig.agent.transcript
    kept = transcript.kept()
    points = [json.loads(entry)["point"] for entry in kept.entries]
    assert points[0] == "runtime_logging"
    assert points[-1] == "create_container"
    assert replay(kept.base, kept.entries) == transcript.head
    assert b"/usr/bin:/bin" not in b"".join(kept.entries)  # values of variables are not told
