"""The task service against a guest of local processes. Numbers: reference/containerd.md 6.1."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import betterproto
import pytest

from parma_api.gen.containerd import types
from parma_api.gen.containerd.task import v2
from parma_api.gen.containerd.v1.types import Status
from parma_api.gen.io.containerd.cgroups.v2 import Metrics
from parma_api.gen.parma.agent import v1
from parma_api.status import Code, FailedPreconditionError, NotFoundError, RemoteError
from tests.fakes.rig import Rig, document, read_all, rig


@pytest.fixture
async def shim(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


def refused(code: Code, match: str | None = None) -> pytest.RaisesExc[RemoteError]:
    return pytest.raises(RemoteError, match=match, check=lambda error: error.code is code)


async def test_18_connect_before_and_after_create(shim: Rig) -> None:
    before = await shim.task.connect(v2.ConnectRequest(id="c"))
    assert (before.shim_pid, before.task_pid) == (os.getpid(), 0)
    created = await shim.create("c", "sleep", "60")
    after = await shim.task.connect(v2.ConnectRequest(id="c"))
    assert after.task_pid == created.pid == shim.machine.pid


async def test_19_create_twice_and_again_after_failure(shim: Rig) -> None:
    with refused(Code.NOT_FOUND, "no-such-program"):
        await shim.create("c", "no-such-program")
    assert shim.group.pod is None
    assert all(layer.closed for layer in shim.images.given)
    await shim.create("c", "true")
    with refused(Code.ALREADY_EXISTS, "already exists"):
        await shim.create("c", "true")


async def test_19_two_creates_at_once(shim: Rig) -> None:
    answers = await asyncio.gather(
        shim.create("c", "true"), shim.create("c", "true"), return_exceptions=True
    )
    assert sorted(isinstance(x, RemoteError) for x in answers) == [False, True]


async def test_20_exec_of_a_missing_program_fails_in_start(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    await shim.exec("c", "e", "no-such-program")
    with refused(Code.NOT_FOUND, "executable file not found"):
        await shim.task.start(v2.StartRequest(id="c", exec_id="e"))
    await shim.task.delete(v2.DeleteRequest(id="c", exec_id="e"))


async def test_21_waiting(shim: Rig) -> None:
    with refused(Code.NOT_FOUND):
        await shim.task.wait(v2.WaitRequest(id="c"))
    await shim.create("c", "sh", "-c", "exit 7")
    early = [asyncio.create_task(shim.task.wait(v2.WaitRequest(id="c"))) for _ in range(2)]
    await shim.task.start(v2.StartRequest(id="c"))
    assert [(await task).exit_status for task in early] == [7, 7]
    late = await shim.task.wait(v2.WaitRequest(id="c"))
    assert late.exit_status == 7
    assert late.exited_at == (await early[0]).exited_at


async def test_21_waiting_survives_the_client(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    task, client, serving = await shim.connect()
    waiting = asyncio.create_task(task.wait(v2.WaitRequest(id="c")))
    assert (await task.state(v2.StateRequest(id="c"))).status == Status.RUNNING
    await client.close()
    await asyncio.wait((waiting, serving))
    assert waiting.exception() is not None
    assert (await shim.task.state(v2.StateRequest(id="c"))).status == Status.RUNNING
    await shim.task.kill(v2.KillRequest(id="c", signal=9))
    assert await shim.finish("c") == 137


async def test_22_starting_twice_and_short_lives(shim: Rig) -> None:
    await shim.run("long", "sleep", "60")
    with refused(Code.UNKNOWN, "cannot start a running process"):
        await shim.task.start(v2.StartRequest(id="long"))
    await shim.create("short", "true")
    started = await shim.task.start(v2.StartRequest(id="short"))
    assert started.pid > 0
    await shim.sink.until("exit")
    topics = [t for t, x in shim.sink.received if getattr(x, "container_id", "") == "short"]
    assert topics == ["/tasks/create", "/tasks/start", "/tasks/exit"]
    with refused(Code.FAILED_PRECONDITION, "cannot start a stopped process"):
        await shim.task.start(v2.StartRequest(id="short"))


async def test_23_killing(shim: Rig) -> None:
    await shim.create("c", "sleep", "60")
    await shim.task.kill(v2.KillRequest(id="c", signal=9))
    assert (await shim.task.wait(v2.WaitRequest(id="c"))).exit_status == 137
    with refused(Code.NOT_FOUND, "process already finished: not found"):
        await shim.task.kill(v2.KillRequest(id="c", signal=9))
    await shim.run("d", "sleep", "60")
    await shim.exec("d", "e", "sleep", "60")
    for request, code in (
        (v2.KillRequest(id="d", exec_id="x", signal=9), Code.NOT_FOUND),
        (v2.KillRequest(id="d", exec_id="e", signal=9), Code.FAILED_PRECONDITION),
        (v2.KillRequest(id="d", signal=65), Code.INVALID_ARGUMENT),
        (v2.KillRequest(id="x", signal=9), Code.NOT_FOUND),
    ):
        with refused(code):
            await shim.task.kill(request)
    await shim.task.kill(v2.KillRequest(id="d", signal=0))
    await shim.task.kill(v2.KillRequest(id="d", signal=15, all=True))
    assert await shim.finish("d") == 143
    sent = [
        r for r in shim.behaviour.called("SignalProcess") if isinstance(r, v1.SignalProcessRequest)
    ]
    assert [(r.signal, r.all) for r in sent] == [(9, False), (15, True)]


async def test_23_a_signal_waits_for_nothing(shim: Rig) -> None:
    release = asyncio.Event()
    real_start = v1.StartContainerResponse()

    async def slow(_: object) -> v1.StartContainerResponse:
        await release.wait()
        return real_start

    await shim.create("c", "sleep", "60")
    shim.behaviour.answers["StartContainer"] = slow
    starting = asyncio.create_task(shim.task.start(v2.StartRequest(id="c")))
    await shim.task.kill(v2.KillRequest(id="c", signal=9))
    release.set()
    await starting
    assert await shim.finish("c") == 137
    assert shim.sink.topics()[:3] == ["create", "start", "exit"]


async def test_24_deleting(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    with refused(Code.FAILED_PRECONDITION, "cannot delete a running process"):
        await shim.task.delete(v2.DeleteRequest(id="c"))
    await shim.task.kill(v2.KillRequest(id="c", signal=9))
    waited = await shim.task.wait(v2.WaitRequest(id="c"))
    deleted = await shim.task.delete(v2.DeleteRequest(id="c"))
    assert (deleted.exit_status, deleted.exited_at) == (137, waited.exited_at)
    with refused(Code.NOT_FOUND):
        await shim.task.delete(v2.DeleteRequest(id="c"))
    await shim.create("never-started", "true")
    await shim.task.delete(v2.DeleteRequest(id="never-started"))


async def test_24_deleting_twice_at_once(shim: Rig) -> None:
    await shim.run("c", "true")
    await shim.task.wait(v2.WaitRequest(id="c"))
    answers = await asyncio.gather(
        *(shim.task.delete(v2.DeleteRequest(id="c")) for _ in range(2)), return_exceptions=True
    )
    failed = [x for x in answers if isinstance(x, RemoteError)]
    assert [x.code for x in failed] == [Code.NOT_FOUND]


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 1", 1), ("exit 126", 126), ("kill -9 $$", 137)]
)
async def test_25_exec_statuses(shim: Rig, script: str, status: int) -> None:
    await shim.run("c", "sleep", "60")
    await shim.exec("c", "e", "sh", "-c", script)
    with refused(Code.ALREADY_EXISTS, "already exists"):
        await shim.exec("c", "e", "true")
    started = await shim.task.start(v2.StartRequest(id="c", exec_id="e"))
    assert started.pid > 0
    assert await shim.finish("c", "e") == status
    with refused(Code.NOT_FOUND):
        await shim.task.state(v2.StateRequest(id="c", exec_id="e"))


async def test_25_execs_and_the_end_of_their_container(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    await shim.exec("c", "unstarted", "true")
    await shim.exec("c", "running", "sleep", "60")
    await shim.task.start(v2.StartRequest(id="c", exec_id="running"))
    await shim.task.kill(v2.KillRequest(id="c", signal=9))
    await shim.task.wait(v2.WaitRequest(id="c"))
    ends = [x.id for t, x in shim.sink.received if t == "/tasks/exit"]  # type: ignore[attr-defined]
    await shim.sink.until("exit", 2)
    ends = [x.id for t, x in shim.sink.received if t == "/tasks/exit"]  # type: ignore[attr-defined]
    assert ends == ["running", "c"]
    with refused(Code.FAILED_PRECONDITION):
        await shim.exec("c", "late", "true")
    with refused(Code.FAILED_PRECONDITION):
        await shim.task.start(v2.StartRequest(id="c", exec_id="unstarted"))
    await shim.task.delete(v2.DeleteRequest(id="c", exec_id="unstarted"))


async def test_26_events_of_a_life(shim: Rig) -> None:
    shim.sink.refuse_dials = 3
    await shim.run("c", "sleep", "60")
    await shim.exec("c", "e", "true")
    await shim.task.start(v2.StartRequest(id="c", exec_id="e"))
    await shim.finish("c", "e")
    await shim.task.pause(v2.PauseRequest(id="c"))
    assert (await shim.task.state(v2.StateRequest(id="c"))).status == Status.PAUSED
    with refused(Code.FAILED_PRECONDITION):
        await shim.task.pause(v2.PauseRequest(id="c"))
    await shim.task.resume(v2.ResumeRequest(id="c"))
    await shim.task.kill(v2.KillRequest(id="c", signal=9))
    await shim.finish("c")
    await shim.sink.until("delete")
    assert shim.sink.topics() == [
        *("create", "start", "exec-added", "exec-started", "exit"),
        *("paused", "resumed", "exit", "delete"),
    ]


async def test_26_events_of_failures(shim: Rig) -> None:
    async def fails(_: object) -> v1.StartContainerResponse:
        raise FailedPreconditionError("not today")

    await shim.create("c", "true")
    shim.behaviour.answers["StartContainer"] = fails
    with refused(Code.FAILED_PRECONDITION, "not today"):
        await shim.task.start(v2.StartRequest(id="c"))
    await shim.task.delete(v2.DeleteRequest(id="c"))
    del shim.behaviour.answers["StartContainer"]
    await shim.run("d", "sleep", "60")
    await shim.exec("d", "e", "no-such-program")
    with refused(Code.NOT_FOUND):
        await shim.task.start(v2.StartRequest(id="d", exec_id="e"))
    await shim.task.delete(v2.DeleteRequest(id="d", exec_id="e"))
    await shim.task.kill(v2.KillRequest(id="d", signal=9))
    await shim.finish("d")
    await shim.sink.until("delete", 2)
    failed, started = ["create", "delete"], ["create", "start", "exec-added", "exit", "delete"]
    assert shim.sink.topics() == failed + started


@pytest.mark.parametrize("number", [2, 9, 15, 64])
async def test_23_signals(shim: Rig, number: int) -> None:
    await shim.run("c", "sleep", "60")
    await shim.task.kill(v2.KillRequest(id="c", signal=0))
    await shim.task.kill(v2.KillRequest(id="c", signal=number))
    assert await shim.finish("c") == 128 + number


async def test_29_shutdown_counts_containers(shim: Rig) -> None:
    await shim.run("c", "true")
    await shim.task.wait(v2.WaitRequest(id="c"))
    await shim.task.shutdown(v2.ShutdownRequest(id="c"))
    await shim.task.state(v2.StateRequest(id="c"))
    assert not shim.shutdowns
    await shim.finish("c")
    await shim.task.shutdown(v2.ShutdownRequest(id="c"))
    await shim.task.connect(v2.ConnectRequest(id="c"))
    assert len(shim.shutdowns) == 1


async def test_32_questions(shim: Rig) -> None:
    await shim.create("c", "sh", "-c", "exit 3")
    pids = await shim.task.pids(v2.PidsRequest(id="c"))
    assert [x.pid for x in pids.processes] == [shim.machine.pid]
    await shim.task.update(_update("c", b'{"memory":{"limit":1048576},"cpu":{"shares":512}}'))
    await shim.task.start(v2.StartRequest(id="c"))
    await shim.task.wait(v2.WaitRequest(id="c"))
    stats = (await shim.task.stats(v2.StatsRequest(id="c"))).stats
    assert stats.type_url == "io.containerd.cgroups.v2.Metrics"
    assert Metrics().parse(stats.value).cpu.usage_usec == 1000
    with refused(Code.NOT_FOUND):
        await shim.task.update(_update("c", b"{}"))
    with refused(Code.UNIMPLEMENTED):
        await shim.task.checkpoint(v2.CheckpointTaskRequest(id="c"))
    with refused(Code.UNIMPLEMENTED):
        await shim.task.create(v2.CreateTaskRequest(id="d", checkpoint="x"))
    asked = shim.behaviour.called("UpdateResources")[0]
    assert isinstance(asked, v1.UpdateResourcesRequest)
    assert (asked.resources.memory_limit, asked.resources.cpu_shares) == (1048576, 512)


def _update(name: str, resources: bytes) -> v2.UpdateTaskRequest:
    from betterproto.lib.google.protobuf import Any

    return v2.UpdateTaskRequest(id=name, resources=Any(value=resources))


async def test_39_version_3_on_the_same_socket(shim: Rig) -> None:
    from parma_api.gen.containerd.task import v3

    _, client, serving = await shim.connect()
    task = v3.TaskStub(client)
    bundle = shim.bundle("c", document("true"))
    created = await task.create(v3.CreateTaskRequest(id="c", bundle=bundle))
    assert created.pid == shim.machine.pid
    await task.start(v3.StartRequest(id="c"))
    assert (await task.wait(v3.WaitRequest(id="c"))).exit_status == 0
    await client.close()
    await asyncio.wait((serving,))


async def test_order_of_calls_to_the_guest(shim: Rig) -> None:
    await shim.run("c", "true")
    await shim.task.wait(v2.WaitRequest(id="c"))
    await shim.run("d", "true")
    await shim.finish("d")
    wanted = [x for x in shim.behaviour.methods() if x not in ("NextEvent", "WaitProcess")]
    assert wanted == [
        *("Health", "SetPolicy", "SetupSandbox", "MountScratch", "PutFiles"),
        *("MountLayer", "MountLayer", "MountOverlay", "CreateContainer", "StartContainer"),
        *("MountOverlay", "CreateContainer", "StartContainer", "ShutdownContainer"),
        "UnmountOverlay",
    ]


async def test_the_stubs_certificates_go_with_the_policy(shim: Rig) -> None:
    await shim.run("c", "true")
    [request] = [x for name, x in shim.behaviour.calls if name == "SetPolicy"]
    assert isinstance(request, v1.SetPolicyRequest)
    assert request.certificates == b"the stub's"


async def test_a_layer_goes_with_its_last_user(shim: Rig) -> None:
    shim.images.names = {"a": ["base", "one"], "b": ["base", "two"]}
    await shim.run("a", "sleep", "60")
    await shim.run("b", "true")
    assert shim.group.pod is not None
    assert sorted(shim.group.pod._layers.users().values()) == [1, 1, 2]
    assert await shim.finish("b") == 0
    assert sorted(shim.group.pod._layers.users().values()) == [1, 1]
    assert len(shim.machine.detached) == 1
    overlay = shim.behaviour.called("MountOverlay")[0]
    assert isinstance(overlay, v1.MountOverlayRequest)
    assert overlay.layer_paths == ["/run/mounts/scsi/m1", "/run/mounts/scsi/m0"]


async def test_the_vm_dies(shim: Rig) -> None:
    await shim.run("a", "sleep", "60")
    await shim.run("b", "sleep", "60")
    await shim.exec("b", "e", "sleep", "60")
    await shim.task.start(v2.StartRequest(id="b", exec_id="e"))
    shim.machine.kill()
    waits = [shim.task.wait(v2.WaitRequest(id=x)) for x in ("a", "b")]
    assert [x.exit_status for x in await asyncio.gather(*waits)] == [137, 137]
    await shim.sink.until("exit", 3)
    ends = [x.id for t, x in shim.sink.received if t == "/tasks/exit"]  # type: ignore[attr-defined]
    assert ends.index("e") < ends.index("b")
    with refused(Code.NOT_FOUND):
        await shim.task.kill(v2.KillRequest(id="a", signal=9))
    assert await shim.finish("a") == 137
    assert await shim.finish("b") == 137
    assert all(layer.closed for layer in shim.images.given)


async def test_a_failed_boot_is_tried_once_more(shim: Rig) -> None:
    shim.behaviour.failing_boots = 1
    await shim.run("c", "true")
    assert len(shim.behaviour.machines) == 2
    assert await shim.finish("c") == 0
    shim.behaviour.failing_boots = 2
    with refused(Code.UNAVAILABLE, "did not come up"):
        await shim.create("c", "true")
    assert len(shim.behaviour.machines) == 4
    assert shim.group.pod is None


async def test_a_vm_that_ends_while_its_pod_is_set_up_is_the_cause(shim: Rig) -> None:
    async def die(_request: betterproto.Message) -> betterproto.Message:
        shim.machine.kill()
        return await asyncio.Future()

    shim.behaviour.answers["MountScratch"] = die
    with refused(Code.UNAVAILABLE, "the utility VM ended while the pod was set up: killed"):
        await shim.create("c", "true")
    assert shim.group.pod is None
    assert not shim.behaviour.machines[-1].running


async def test_no_layers_no_disk(shim: Rig) -> None:
    """K5."""
    shim.images.names["c"] = []
    with refused(Code.FAILED_PRECONDITION, "an image of 0 layers"):
        await shim.create("c", "true")
    assert shim.behaviour.called("MountLayer") == []
    assert shim.group.pod is None


async def test_38_a_missing_blob_ends_the_boot(shim: Rig) -> None:
    shim.images.error = NotFoundError("layer sha256:12 is not in containerd's store")
    shim.behaviour.held["Health"] = asyncio.Event()
    with refused(Code.NOT_FOUND, "layer sha256:12 is not in containerd's store"):
        await shim.create("c", "true")
    assert [machine.running for machine in shim.behaviour.machines] == [False]
    assert shim.group.pod is None
    shim.images.error = None
    del shim.behaviour.held["Health"]
    await shim.run("c", "true")
    assert await shim.finish("c") == 0


async def test_40_an_unknown_root(shim: Rig) -> None:
    request = v2.CreateTaskRequest(
        id="c", bundle=shim.bundle("c", document("true")), rootfs=[types.Mount(type="9p")]
    )
    with refused(Code.UNIMPLEMENTED, "a mount of type '9p' is not known"):
        await shim.task.create(request)
    assert shim.behaviour.machines == []


CRI = "io.kubernetes.cri."


def _cri(kind: str) -> dict[str, object]:
    return {"annotations": {f"{CRI}container-type": kind, f"{CRI}sandbox-id": "pod"}}


async def test_36_a_pod_of_two(shim: Rig) -> None:
    with refused(Code.FAILED_PRECONDITION, "not running"):
        await shim.create("early", "true", **_cri("container"))
    await shim.run("pod", "/pause", **_cri("sandbox"))
    assert shim.behaviour.called("CreateContainer") == []
    await shim.run("a", "sleep", "60", **_cri("container"))
    await shim.run("b", "true", **_cri("container"))
    assert await shim.finish("b") == 0
    assert len(shim.behaviour.machines) == 1
    with refused(Code.UNIMPLEMENTED, "whole group"):
        await shim.create("c", "true", **_cri("container"))
        await shim.task.pause(v2.PauseRequest(id="a"))
    waiting = asyncio.create_task(shim.task.wait(v2.WaitRequest(id="pod")))
    await shim.task.kill(v2.KillRequest(id="pod", signal=15))
    assert (await waiting).exit_status == 0
    assert (await shim.task.state(v2.StateRequest(id="a"))).status == Status.RUNNING
    await shim.finish("pod")
    assert await shim.finish("a") == 137
    await shim.task.delete(v2.DeleteRequest(id="c"))


async def test_the_termination_log_is_there_before_the_end_is_told(
    shim: Rig, tmp_path: Path
) -> None:
    file = tmp_path / "pods/u-1/containers/c/0123abcd"
    file.parent.mkdir(parents=True)
    file.touch()

    async def ended(_: object) -> v1.WaitProcessResponse:
        return v1.WaitProcessResponse(exit_status=3, termination_log=b"last words")

    shim.behaviour.answers["WaitProcess"] = ended
    mount = {
        "destination": "/dev/termination-log",
        "type": "bind",
        "source": str(file),
        "options": ["rbind", "rprivate", "rw"],
    }
    await shim.run("c", "true", mounts=[mount])
    await shim.sink.until("exit")
    assert file.read_bytes() == b"last words"
    assert await shim.finish("c") == 3


async def test_stats_of_the_pause_container(shim: Rig) -> None:
    await shim.run("pod", "/pause", **_cri("sandbox"))
    stats = (await shim.task.stats(v2.StatsRequest(id="pod"))).stats
    Metrics().parse(stats.value)
    shim.machine.kill()
    assert await shim.finish("pod") == 137


async def test_out_of_memory_of_own_containers_only(shim: Rig) -> None:
    """K18a."""
    await shim.run("c", "sleep", "60")
    agent = shim.machine.agent
    assert agent is not None
    for name in ("f" * 64, "c", "", shim.group.tasks["c"].guest.id):  # type: ignore[union-attr]
        agent.events.put_nowait(name)
    event = await shim.sink.until("oom")
    assert event.container_id == "c"  # type: ignore[attr-defined]
    assert shim.sink.topics().count("oom") == 1


async def test_signals_that_the_policy_withholds(shim: Rig) -> None:
    async def deny(_: object) -> v1.SignalProcessResponse:
        raise RemoteError(Code.PERMISSION_DENIED, "signal denied")

    await shim.run("c", "sleep", "60")
    shim.behaviour.answers["SignalProcess"] = deny
    with refused(Code.PERMISSION_DENIED):
        await shim.task.kill(v2.KillRequest(id="c", signal=15))
    await shim.task.kill(v2.KillRequest(id="c", signal=9))
    assert await shim.finish("c") == 137


async def test_27_late_reader_and_everything_arrives(shim: Rig) -> None:
    out = shim.fifo("out")
    creating = asyncio.create_task(
        shim.create("c", "sh", "-c", "head -c 10485760 /dev/zero", stdout=str(out))
    )
    done, _ = await asyncio.wait((creating,), timeout=0.05)
    assert not done
    reading = asyncio.create_task(read_all(out))
    await creating
    await shim.task.start(v2.StartRequest(id="c"))
    assert await reading == bytes(10 << 20)
    assert await shim.finish("c") == 0
