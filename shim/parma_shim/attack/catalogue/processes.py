"""Further processes, signals, standard streams, properties; and what a container itself may try."""

from __future__ import annotations

import asyncio

from parma_api.channel.stream import ByteStream
from parma_api.gen.parma.agent import v1
from parma_api.status import Code
from parma_shim.attack.lab import Lab
from parma_shim.attack.outcome import AttackError, Observation, all_of, denied, refused, stopped
from parma_shim.attack.policy import MAKE_NODE, OPEN_VSOCK, PATH, READ
from parma_shim.attack.program import CANARY_TEXT, EAFNOSUPPORT, EPERM
from parma_shim.attack.registry import Must, attack
from parma_shim.attack.rig import POD

NOTICE = b"parma: stdout withheld by policy\n"
"""What the agent says in a withheld stream's place; nothing of the workload."""
_EACCES = 13
SHELL = ("/bin/sh", "-c", "id")


@attack("M5a", "runs a command in the VM itself", Must.DENIED)
async def in_the_machine(lab: Lab) -> Observation:
    group = await lab.group()
    seen = []
    for what, args, env in (
        ("a shell", list(SHELL), []),
        ("a container's own command", list(READ), [PATH]),
        ("nothing", [], []),
    ):
        request = v1.ExecExternalRequest(exec_id="evil", args=args, env=env, working_dir="/")
        seen.append(await denied(what, group.rig.agent.exec_external(request), "process.command"))
    await group.rig.require_no_process("", "evil")
    await group.require_untouched()
    return all_of(*seen)


@attack("M5b", "runs a command in a container", Must.DENIED)
async def in_a_container(lab: Lab) -> Observation:
    group = await lab.group()
    rig, app = group.rig, group.app
    seen = [
        await denied("a shell", rig.execute(app, "evil", SHELL), "process.command"),
        await denied("a listed one, as it is not", rig.execute(app, "evil", READ[:1]), "process.command"),
        await denied("another cwd", rig.execute(app, "evil", READ, cwd="/etc"), "process.working_dir"),
        await denied("a variable more", rig.execute(app, "evil", READ, env=[PATH, "X=1"]), "process.env"),
        await denied("before its start", rig.execute(group.probe, "evil", READ), "container.not_started"),
        await denied("nowhere", rig.execute(rig.new_id(), "evil", READ), "container.not_started"),
    ]  # fmt: skip
    await rig.require_no_process(app, "evil")
    other = await group.assemble()
    await rig.create(other, READ)  # is `reader` from now on, which has no further processes
    seen.append(await stopped("listed for another container", rig.execute(other, "evil", READ)))
    await rig.start(other)
    seen.append(
        await denied("the same, started", rig.execute(other, "evil", READ), "process.command")
    )
    await rig.wait(other)
    await rig.remove(other)
    await group.require_untouched()
    return all_of(*seen)


@attack("M6a", "asks for a container's standard streams", Must.DENIED)
async def standard_streams(lab: Lab) -> Observation:
    group = await lab.group()
    rig = group.rig
    container = rig.new_id()
    await rig.mount_overlay(container, [group.targets["extra"]])
    out_number, out = rig.open_stream()
    error_number, error = rig.open_stream()
    stdio = v1.Stdio(stdout=out_number, stderr=error_number)
    await rig.create(container, READ, stdio=stdio)
    await rig.start(container)
    status = await rig.wait(container)
    async with asyncio.timeout(40):
        got = await _all(out) + await _all(error)
    await rig.remove(container)
    if got not in (b"", NOTICE) or status:
        raise AttackError(f"{len(got)} bytes of a withheld stream; exit status {status}")
    sensitive = await _streams_that_are_allowed(lab)
    return Observation(
        f"64 KiB written by the container, none of it seen, its exit status 0; {sensitive}",
        ("withheld",),
    )


async def _all(stream: ByteStream) -> bytes:
    """To its end."""
    got = b""
    while part := await stream.read():
        got += part
    return got


async def _streams_that_are_allowed(lab: Lab) -> str:
    """The same bytes do come where the policy allows it: else the test above would prove nothing."""
    group = await lab.group()
    container = await group.assemble()
    number, out = group.rig.open_stream()
    await group.rig.create(container, READ, stdio=v1.Stdio(stdout=number))
    await group.rig.start(container)
    async with asyncio.timeout(40):
        got = await _all(out)
    await group.rig.wait(container)
    await group.rig.remove(container)
    if got != CANARY_TEXT:
        raise AttackError(f"{len(got)} bytes where {len(CANARY_TEXT)} were allowed")
    return "where it is allowed all are seen"


@attack("M6b", "asks for stacks", Must.DENIED)
async def stacks(lab: Lab) -> Observation:
    group = await lab.group()
    call = group.rig.agent.dump_stacks(v1.DumpStacksRequest())
    return await denied("stacks of the agent", call, "flag.off")


@attack("M6c", "asks for container properties", Must.DENIED)
async def properties(lab: Lab) -> Observation:
    group = await lab.group()
    agent, app = group.rig.agent, group.app
    number, _ = group.rig.open_stream()
    port = v1.ForwardPortRequest(port=22, stream=number)
    return all_of(
        await denied("statistics", agent.stats(v1.StatsRequest(container_id=app)), "flag.off"),
        await denied(
            "processes", agent.list_processes(v1.ListProcessesRequest(container_id=app)), "flag.off"
        ),
        await denied("a port", agent.forward_port(port), "port.not_allowed"),
    )


@attack("K4", "writes to a disk from inside a container with CAP_MKNOD", Must.DENIED)
async def device_node(lab: Lab) -> Observation:
    group = await lab.group()
    status = await group.rig.execute_and_wait(group.app, MAKE_NODE)
    if status not in (EPERM, _EACCES):
        raise AttackError(f"making a device node and opening it ends with {status}")
    if await group.rig.execute_and_wait(group.app, READ):
        raise AttackError("the group does not read its layers any more")
    return Observation(f"a node for the VM's disk cannot be used: error {status}", ("eperm",))


@attack("K20", "opens AF_VSOCK from a container", Must.DENIED)
async def vsock(lab: Lab) -> Observation:
    group = await lab.group()
    status = await group.rig.execute_and_wait(group.app, OPEN_VSOCK)
    if status != EAFNOSUPPORT:
        raise AttackError(f"socket(AF_VSOCK) ends with {status}, not EAFNOSUPPORT")
    return Observation(f"socket(AF_VSOCK) ends with EAFNOSUPPORT ({status})", ("eafnosupport",))


@attack("K16", "gives the pod another network after its containers run", Must.DENIED)
async def another_network(lab: Lab) -> Observation:
    group = await lab.group()
    again = v1.SetupSandboxRequest(sandbox_id=POD, hostname="other")
    route = v1.Route(destination="127.0.0.0/8", gateway="10.0.0.1")
    more = v1.SetupSandboxRequest(sandbox_id=POD, hostname="attacked", routes=[route])
    other = v1.SetupSandboxRequest(sandbox_id="ef" * 32, hostname="other")
    seen = [
        await refused("once more", group.rig.agent.setup_sandbox(again), Code.FAILED_PRECONDITION),
        await stopped("a route that captures loopback", group.rig.agent.setup_sandbox(more)),
        await refused(
            "another pod", group.rig.agent.setup_sandbox(other), Code.FAILED_PRECONDITION
        ),
    ]
    await group.require_untouched()
    return all_of(*seen)
