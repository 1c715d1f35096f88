"""A guest that lies, floods, stalls and breaks off (attacks.md, K18)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import betterproto
import pytest

from parma_api.gen.containerd.task import v2
from parma_api.gen.containerd.v1.types import Status
from parma_api.gen.parma.agent import v1
from parma_api.status import Code, InternalError, RemoteError
from parma_shim.agent.text import MAX_TEXT, clean
from parma_shim.sandbox import pod
from tests.fakes.rig import Rig, rig


@pytest.fixture
async def shim(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


def answers(shim: Rig, method: str, answer: betterproto.Message) -> None:
    async def give(_: betterproto.Message) -> betterproto.Message:
        return answer

    shim.behaviour.answers[method] = give


def raises(shim: Rig, method: str, error: Exception) -> None:
    async def fail(_: betterproto.Message) -> betterproto.Message:
        raise error

    shim.behaviour.answers[method] = fail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a\nb\tc\x1b[31m\x00", "a b c [31m "),
        ("x" * 500, "x" * (MAX_TEXT - 3) + "..."),
        ("\u202eevil", " evil"),
    ],
)
def test_text(text: str, expected: str) -> None:
    assert clean(text) == expected


async def test_injected_text(shim: Rig) -> None:
    """K18d."""
    raises(shim, "CreateContainer", InternalError('x" level=fatal\n\x1b[2J' + "y" * 100_000))
    with pytest.raises(RemoteError) as caught:
        await shim.create("c", "true")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) <= MAX_TEXT
    assert shim.group.pod is None


@pytest.mark.parametrize(
    ("method", "answer", "match"),
    [
        ("SetPolicy", v1.SetPolicyResponse(policy_sha256="0" * 64), "another policy"),
        ("MountLayer", v1.MountLayerResponse(root_hash="0" * 64), "was plugged in"),
        ("MountLayer", v1.MountLayerResponse(root_hash="/etc/passwd"), "no root hash"),
        ("Health", v1.HealthResponse(version="v" * (300 << 10)), "did not come up|refused|exceed"),
    ],
)
async def test_lies_while_a_container_is_made(
    shim: Rig, method: str, answer: betterproto.Message, match: str
) -> None:
    answers(shim, method, answer)
    with pytest.raises(RemoteError, match=match):
        await shim.create("c", "true")
    assert shim.group.pod is None
    assert all(layer.closed for layer in shim.images.given)
    assert all(not machine.disks for machine in shim.behaviour.machines)


@pytest.mark.parametrize("told", [{"exit_status": 1 << 20}, {"termination_log": bytes(4097)}])
async def test_an_impossible_exit(shim: Rig, told: dict[str, Any]) -> None:
    """The process cannot be trusted to have ended: it is killed, and counts as killed."""
    await shim.create("c", "sleep", "60")
    answers(shim, "WaitProcess", v1.WaitProcessResponse(**told))
    await shim.run("d", "sleep", "60")
    assert (await shim.task.wait(v2.WaitRequest(id="d"))).exit_status == 137
    killed = shim.behaviour.called("SignalProcess")[-1]
    assert isinstance(killed, v1.SignalProcessRequest)
    assert killed.signal == 9


async def test_poisoned_statistics(shim: Rig) -> None:
    """K18e."""
    await shim.run("c", "sleep", "60")
    answers(shim, "Stats", v1.StatsResponse(memory=v1.MemoryStats(usage=1 << 62)))
    with pytest.raises(RemoteError, match="statistics: usage"):
        await shim.task.stats(v2.StatsRequest(id="c"))


async def test_an_answer_without_end(shim: Rig) -> None:
    """K18c: the answer is refused, and the shim lives."""
    await shim.run("c", "sleep", "60")
    answers(shim, "ListProcesses", v1.ListProcessesResponse())
    answers(shim, "Stats", v1.StatsResponse(io=[v1.IoStats(major=n + 1) for n in range(200_000)]))
    with pytest.raises(RemoteError):
        await shim.task.stats(v2.StatsRequest(id="c"))
    assert (await shim.task.state(v2.StateRequest(id="c"))).status == Status.RUNNING


async def test_garbage_on_the_channel_ends_the_pod(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    agent = shim.machine.agent
    assert agent is not None
    agent._mux._descriptor.write_now([b"\xff" * 64])  # type: ignore[union-attr]
    assert (await shim.task.wait(v2.WaitRequest(id="c"))).exit_status == 137
    assert await shim.finish("c") == 137


async def test_a_guest_that_never_answers_removals(
    shim: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod, "REMOVE_DEADLINE", 0.1)
    hang = asyncio.Event()

    async def never(_: betterproto.Message) -> betterproto.Message:
        await hang.wait()
        raise AssertionError

    await shim.run("a", "sleep", "60")
    await shim.run("b", "true")
    await shim.task.wait(v2.WaitRequest(id="b"))
    shim.behaviour.answers["ShutdownContainer"] = never
    async with asyncio.timeout(5):
        await shim.task.delete(v2.DeleteRequest(id="b"))
    assert (await shim.task.state(v2.StateRequest(id="a"))).status == Status.RUNNING


async def test_a_denial_reaches_containerd_in_three_lines(shim: Rig) -> None:
    from parma_api.policy.refusal import decision_text

    text = decision_text("create_container", ("process.command",), {"argList": ["x"]}, {}, None)
    raises(shim, "CreateContainer", RemoteError(Code.PERMISSION_DENIED, text))
    with pytest.raises(RemoteError) as caught:
        await shim.create("c", "true")
    assert caught.value.code is Code.PERMISSION_DENIED
    lines = caught.value.message.split("\n")
    assert lines[0] == "create_container denied by policy: process.command"
    assert 2 <= len(lines) <= 3
    assert Path(lines[-1].split()[-1]).parent == shim.folder / "run" / "denials"


async def test_a_flood_of_events(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    answers(shim, "NextEvent", v1.NextEventResponse(sequence=0))
    agent = shim.machine.agent
    assert agent is not None
    agent.events.put_nowait("f" * 64)  # the call under way; the next answer does not count upwards
    assert (await shim.task.state(v2.StateRequest(id="c"))).status == Status.RUNNING
