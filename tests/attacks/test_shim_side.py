"""What the shim must stand: hostile annotations, images without layers, and a hostile guest."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import betterproto
import pytest

from parma_api.channel.frame import ChannelError, Hello, data_header, encode_hello
from parma_api.channel.session import ChannelSession, Side
from parma_api.gen.containerd import events
from parma_api.gen.containerd.task import v2
from parma_api.gen.containerd.v1.types import Status
from parma_api.gen.parma.agent import v1
from parma_api.ids import guest_id
from parma_api.launch import VmSize
from parma_api.status import InternalError, InvalidArgumentError, RemoteError
from parma_shim.agent.text import MAX_TEXT
from parma_shim.config import Config
from parma_shim.podconfig import MEMORY, POLICY, SIZE, RuntimeOptions, pod_config
from parma_shim.vmm.cmdline import argv
from parma_shim.vmm.config import Accelerator, MachineConfig
from tests.fakes.rig import Rig, rig
from tests.tools.machines import paper_image

POLICY_ONLY = {POLICY: base64.b64encode(b"package policy\n").decode()}
WINDOW = 1000


@pytest.fixture
async def shim(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


def answers(shim: Rig, method: str, answer: betterproto.Message) -> None:
    async def give(_: betterproto.Message) -> betterproto.Message:
        return answer

    shim.behaviour.answers[method] = give


# The host's users


HOSTILE = {
    "io.katacontainers.config.hypervisor.virtio_fs_extra_args": '["-o", "source=/"]',
    "io.katacontainers.config.hypervisor.kernel_params": "agent.debug_console systemd.debug-shell",
    "io.katacontainers.config.hypervisor.path": "/tmp/evil",
    "io.parma/kernel_params": "init=/bin/sh",
    "io.parma/qemu": "/tmp/evil",
    "io.microsoft.virtualmachine.lcow.kernelbootoptions": "init=/bin/sh",
}


def command_line(annotations: dict[str, str]) -> tuple[list[str], str]:
    """QEMU's and the kernel's, for a pod with these."""
    pod = pod_config(Config(), annotations, RuntimeOptions())
    image = paper_image()
    config = MachineConfig(
        image=image,
        size=pod.size,
        memory_mib=pod.memory_mib,
        accelerator=Accelerator.TCG,
        run_dir=Path("/run"),
        host_data=pod.policy.host_data,
    )
    return argv(config), image.cmdline


def test_K3_annotations_reach_no_command_line() -> None:
    assert command_line({**POLICY_ONLY, **HOSTILE}) == command_line(POLICY_ONLY)


@pytest.mark.parametrize("text", ["medium -append x", "medium,cpus=64", "MEDIUM", "", "../large"])
def test_K3_a_size_is_one_of_the_names(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        command_line({**POLICY_ONLY, SIZE: text})


@pytest.mark.parametrize("text", ["512 -device x", "512,share=on", "-1", "1e9", "٥١٢", ""])
def test_K3_memory_is_a_number(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        command_line({**POLICY_ONLY, MEMORY: text})


def test_K3_what_is_known_does_change_it() -> None:
    large = command_line({**POLICY_ONLY, SIZE: VmSize.LARGE, MEMORY: "4096"})
    assert large != command_line(POLICY_ONLY)


async def test_K5_an_image_without_layers_plugs_nothing_in(shim: Rig) -> None:
    shim.images.names["c"] = []
    with pytest.raises(RemoteError, match="0 layers"):
        await shim.create("c", "true")
    assert not shim.behaviour.called("MountLayer")
    assert all(machine.disks.keys() <= {0} for machine in shim.behaviour.machines)  # the scratch


def test_K25_qemu_is_sandboxed_without_devices_and_defaults() -> None:
    words, _ = command_line(POLICY_ONLY)
    sandbox = words[words.index("-sandbox") + 1].split(",")
    assert sandbox[0] == "on"
    for refused in ("obsolete", "elevateprivileges", "spawn", "resourcecontrol"):
        assert f"{refused}=deny" in sandbox
    assert "-nodefaults" in words
    assert "-no-user-config" in words
    assert not any(word.startswith(("/tmp", "/var")) for word in words)


# The guest


async def test_K18a_an_event_about_a_foreign_container(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    agent = shim.machine.agent
    assert agent is not None
    for name in ("e" * 64, "c", "../c", guest_id("other", "c")):
        agent.events.put_nowait(name)
    agent.events.put_nowait(guest_id("test", "c"))
    told = await shim.sink.until("oom")
    assert isinstance(told, events.TaskOom)
    assert told.container_id == "c"
    assert shim.sink.topics().count("oom") == 1


def test_K18b_more_bytes_on_a_stream_than_were_asked_for() -> None:
    host = ChannelSession(Side.HOST, window=WINDOW, control_window=2 * WINDOW)
    host.receive(encode_hello(Hello(WINDOW, 2 * WINDOW)))
    stream = host.next_id()
    host.open(stream)
    host.receive(data_header(stream, WINDOW) + bytes(WINDOW))
    with pytest.raises(ChannelError):
        host.receive(data_header(stream, 1) + b"x")
    assert len(host.take(stream, 10 * WINDOW)) <= WINDOW


async def test_K18c_an_answer_without_end(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    rows = [v1.IoStats(major=number + 1) for number in range(20_000)]
    answers(shim, "Stats", v1.StatsResponse(io=rows))
    with pytest.raises(RemoteError):
        await shim.task.stats(v2.StatsRequest(id="c"))
    assert (await shim.task.state(v2.StateRequest(id="c"))).status == Status.RUNNING


async def test_K18d_text_injected_by_an_error(shim: Rig) -> None:
    async def fail(_: betterproto.Message) -> betterproto.Message:
        raise InternalError('x" level=fatal\n\x1b[2J\u202e' + "y" * 100_000)

    shim.behaviour.answers["CreateContainer"] = fail
    with pytest.raises(RemoteError) as caught:
        await shim.create("c", "true")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) <= MAX_TEXT


@pytest.mark.parametrize(
    "poison",
    [
        v1.StatsResponse(memory=v1.MemoryStats(usage=1 << 62)),
        v1.StatsResponse(cpu=v1.CpuStats(usage_usec=(1 << 64) - 1)),
        v1.StatsResponse(pids=v1.PidsStats(current=1 << 60)),
    ],
    ids=["memory", "cpu", "pids"],
)
async def test_K18e_poisoned_statistics(shim: Rig, poison: v1.StatsResponse) -> None:
    await shim.run("c", "sleep", "60")
    answers(shim, "Stats", poison)
    with pytest.raises(RemoteError, match="statistics"):
        await shim.task.stats(v2.StatsRequest(id="c"))


async def test_K18e_numbers_within_their_range_arrive(shim: Rig) -> None:
    """Or the tests above would pass for a shim that refuses all statistics."""
    await shim.run("c", "sleep", "60")
    answers(shim, "Stats", v1.StatsResponse(memory=v1.MemoryStats(usage=1 << 20)))
    assert (await shim.task.stats(v2.StatsRequest(id="c"))).stats is not None
