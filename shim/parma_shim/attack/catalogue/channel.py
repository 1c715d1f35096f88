"""What arrives on the channel: malformed requests, unknown methods, garbage; and the machine around the guest."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from parma_api.channel.stream import StreamClosedError
from parma_api.gen.parma.agent import v1
from parma_api.status import ApiError, Code
from parma_shim.attack.lab import Group, Lab
from parma_shim.attack.outcome import AttackError, Observation, all_of, denied, refused, stopped
from parma_shim.attack.policy import WRITE
from parma_shim.attack.registry import Must, Stage, attack

_SECONDS = 6.0


@attack("K23", "sends requests that the message library would take silently", Must.DENIED)
async def malformed(lab: Lab) -> Observation:
    group = await lab.group()
    good = bytes(v1.ShutdownContainerRequest(container_id=group.app))
    cases = {
        "truncated": good[:-1],
        "a length beyond its end": b"\x0a\xff\x01" + good[2:],
        "bytes behind the end": good + b"\x0a",
        "an unknown field": good + b"\x7a\x01x",
        "a wrong wire type": b"\x08\x01",
        "field number zero": b"\x00\x00",
        "a group": b"\x0b\x0c",
        "no UTF-8": b"\x0a\x02\xc3\x28",
        "an endless varint": b"\x0a" + b"\xff" * 11,
    }
    seen = []
    for what, payload in cases.items():
        call = group.rig.raw_call("ShutdownContainer", payload)
        seen.append(await refused(what, call, Code.INVALID_ARGUMENT))
    call = group.rig.raw_call("CopyFile", b"")
    seen.append(await refused("a method that does not exist", call, Code.UNIMPLEMENTED))
    await group.require_untouched()
    return all_of(*seen)


def _process_facts(pid: int) -> dict[str, list[str]]:
    """/proc/PID/status (proc(5))."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.split() for name, _, value in lines}


@attack("K25", "is a guest that breaks out of QEMU", Must.NO_EFFECT)
async def out_of_qemu(lab: Lab) -> Observation:
    rig = await lab.fresh()
    facts = _process_facts(rig.running.machine.pid)
    wrong = []
    if lab.is_root() and "0" in facts["Uid"] + facts["Gid"]:
        wrong.append(f"uid {facts['Uid']}, gid {facts['Gid']}")
    if facts["Seccomp"] != ["2"] or facts["NoNewPrivs"] != ["1"]:
        wrong.append(f"seccomp {facts['Seccomp']}, no_new_privs {facts['NoNewPrivs']}")
    if any(int(facts[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")):
        wrong.append(f"capabilities {facts['CapEff']}")
    if wrong:
        raise AttackError(f"QEMU runs with {'; '.join(wrong)}")
    return Observation(
        f"QEMU is user {facts['Uid'][0]}, without capabilities, under its seccomp filter",
        ("confined",),
    )


@attack(
    "M4b",
    "sends calls out of order, again, to nobody, many at once, and garbage",
    Must.DENIED,
    Stage.LAST,
)
async def garbage(lab: Lab) -> Observation:
    group = await lab.group()
    seen = await _out_of_order(group)
    await group.require_untouched()
    return all_of(*seen, await _garbage(group))


async def _out_of_order(group: Group) -> list[Observation]:
    rig, agent = group.rig, group.rig.agent
    nobody = rig.new_id()
    signal = v1.SignalProcessRequest(container_id=group.app, signal=15)
    stranger = v1.SignalProcessRequest(container_id=nobody, signal=9)
    end = v1.ShutdownContainerRequest(container_id=nobody)
    seen = [
        await stopped("a start before its creation", rig.start(group.probe)),
        await stopped("a second start", rig.start(group.app)),
        await denied("a second creation", rig.create(group.app), "container.already_started"),
        await denied("a creation without a root", rig.create(nobody), "container.unknown"),
        await denied(
            "a signal that is not allowed", agent.signal_process(signal), "signal.not_allowed"
        ),
        await denied("a signal to nobody", agent.signal_process(stranger), "container.not_started"),
        await denied("the end of nobody", agent.shutdown_container(end), "container.not_started"),
        await stopped("a second root for an id", rig.mount_overlay(group.app, group.app_layers)),
    ]
    many = [rig.mount_overlay(rig.new_id(), list(reversed(group.app_layers))) for _ in range(20)]
    outcomes = await asyncio.gather(*many, return_exceptions=True)
    if not all(getattr(found, "code", None) is Code.PERMISSION_DENIED for found in outcomes):
        raise AttackError(f"twenty at once: {[repr(found)[:80] for found in outcomes]}")
    if await rig.execute_and_wait(group.app, WRITE):
        raise AttackError("the group does not work any more")
    return seen


async def _garbage(group: Group) -> Observation:
    """Into the control stream, then past every framing. The connection is of no use then; the VM lives."""
    rig = group.rig
    await rig.mux.control.write(b"\xff" * 4096)
    request = v1.HealthRequest()
    try:
        await rig.agent.health(request, timeout=_SECONDS)
    except ApiError as error:
        seen = Observation(f"garbage: {error.message}", (error.code.name.lower(),))
    else:
        raise AttackError("a connection that was sent garbage answers as if nothing had been")
    with contextlib.suppress(StreamClosedError):
        await rig.running.machine.channel.write(b"\xff" * 65536)
    await _alive(group)
    return seen


async def _alive(group: Group) -> None:
    """The VM outlives it."""
    try:
        async with asyncio.timeout(2):
            ended = await group.rig.running.machine.wait()
    except TimeoutError:
        return
    raise AttackError(f"the VM ended: {ended.cause}")
