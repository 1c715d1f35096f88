"""The document of a container: every field that a rule covers, and every one that none does.

All of these ask for the probe, a root that is assembled and never created; a refusal must leave it so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from parma_api.gen.parma.agent import v1
from parma_api.policy.defaults import default_sets
from parma_api.policy.refusal import parse_decision
from parma_api.status import ApiError, Code
from parma_api.volumes import pod_directory
from parma_shim.attack.documents import Json, default_mounts, document, process
from parma_shim.attack.lab import Group, Lab
from parma_shim.attack.outcome import AttackError, Observation, all_of, denied, refused, stopped
from parma_shim.attack.policy import DATA_MOUNT, GREETING, IDLE, MAKE_NODE, PATH
from parma_shim.attack.program import EPERM, TOOL
from parma_shim.attack.registry import Must, Stage, attack
from parma_shim.attack.rig import POD

_SECRET = "SECRET=canary-4f1d"  # noqa: S105 - what must not be seen anywhere
_EACCES = 13


async def _process_denied(lab: Lab, cases: Mapping[str, Json], *codes: str) -> Observation:
    """The lawful document with members of its process changed."""
    group = await lab.group()
    seen = []
    for what, changed in cases.items():
        spec = document(group.probe, process={**process(IDLE), **changed})
        seen.append(await denied(what, group.rig.create(group.probe, spec=spec), *codes))
    await group.require_untouched()
    return all_of(*seen)


@attack("F6a", "passes variables that the policy does not list", Must.DENIED)
async def other_variables(lab: Lab) -> Observation:
    return await _process_denied(
        lab,
        {
            "one more": {"env": [PATH, "LD_PRELOAD=/evil.so"]},
            "one more beside all that are allowed": {"env": [PATH, GREETING, "X=1"]},
            "an allowed name twice": {"env": [PATH, "PATH=/evil"]},
            "another case": {"env": [PATH, "Greeting=hello"]},
            "two in one": {"env": [PATH, f"{GREETING}\nX=1"]},
            "no sign": {"env": [PATH, "GREETING"]},
            "no name": {"env": [PATH, "=hello"]},
        },
        "process.env",
    )


@attack("M3c", "adds an environment variable", Must.DENIED)
async def added_variable(lab: Lab) -> Observation:
    cases: dict[str, Json] = {"one added": {"env": [PATH, GREETING, "DEBUG=1"]}}
    return await _process_denied(lab, cases, "process.env")


@attack("M3d", "alters the value of a variable", Must.DENIED)
async def altered_variable(lab: Lab) -> Observation:
    cases: dict[str, Json] = {
        f"{text!r}": {"env": [PATH, text]}
        for text in ("GREETING=hello ", "GREETING=", "GREETING=Hello", "GREETING=hello,")
    }
    return await _process_denied(lab, cases, "process.env")


@attack("M3e", "removes a variable that the policy requires", Must.DENIED)
async def removed_variable(lab: Lab) -> Observation:
    cases: dict[str, Json] = {"none": {"env": []}, "others only": {"env": [GREETING]}}
    return await _process_denied(lab, cases, "process.env_required")


_COMMANDS: dict[str, Json] = {
    "another program": {"args": ["/bin/sh"]},
    "an argument more": {"args": [TOOL, ""]},
    "no path": {"args": ["tool"]},
    "a longer path": {"args": ["/./tool"]},
    "two in one": {"args": [f"{TOOL} /canary"]},
}


@attack("F6b", "passes another command, or other arguments", Must.DENIED)
async def other_command(lab: Lab) -> Observation:
    return await _process_denied(lab, _COMMANDS, "process.command")


@attack("M3f", "alters the tenant's command", Must.DENIED)
async def altered_command(lab: Lab) -> Observation:
    cases: dict[str, Json] = {"an argument of its own": {"args": [TOOL, "/etc/shadow"]}}
    return await _process_denied(lab, cases, "process.command")


@attack("M1a", "tampers with the fields of the OCI document that rules cover", Must.DENIED)
async def covered_fields(lab: Lab) -> Observation:
    group = await lab.group()
    sets = default_sets(privileged=False)
    more = {**sets, "bounding": [*sets["bounding"], "CAP_SYS_ADMIN"]}
    fewer = {**sets, "effective": []}
    seccomp = {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}
    mount = {"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["rw"]}
    specs: dict[str, tuple[Json, str]] = {
        "cwd": ({"process": process(cwd="/etc")}, "process.working_dir"),
        "umask": ({"process": process(user={"uid": 0, "gid": 0, "umask": 0})}, "process.user"),
        "a capability more": ({"process": process(capabilities=more)}, "process.capabilities"),
        "a capability less": ({"process": process(capabilities=fewer)}, "process.capabilities"),
        "all": ({"process": process(capabilities=default_sets(privileged=True))}, "process.capabilities"),
        "seccomp": ({"linux": seccomp}, "process.seccomp"),
        "a mount more": ({"mounts": [*default_mounts(), mount]}, "process.mounts"),
    }  # fmt: skip
    seen = []
    for what, (changed, code) in specs.items():
        spec = {**document(group.probe), **changed}
        seen.append(await denied(what, group.rig.create(group.probe, spec=spec), code))
    call = group.rig.create(group.probe, privileged=True)
    seen.append(await denied("privileged", call, "process.privileged"))
    other_root = document(group.probe, root={"path": "/"})
    call = group.rig.create(group.probe, spec=other_root)
    seen.append(await refused("another root", call, Code.INVALID_ARGUMENT))
    await group.require_untouched()
    return all_of(*seen)


async def _document_refused(group: Group, cases: Mapping[str, Json]) -> list[Observation]:
    """Refused before any decision; the field is named."""
    seen = []
    for field, changed in cases.items():
        call = group.rig.create(group.probe, spec={**document(group.probe), **changed})
        found = await refused(field, call, Code.INVALID_ARGUMENT)
        if field.rpartition(".")[2] not in found.observed.partition(": ")[2]:
            raise AttackError(f"{field}: refused, but not for the field: {found.observed}")
        seen.append(found)
    return seen


@attack("M1b", "sets fields that no rule covers, or that nobody knows", Must.DENIED)
async def uncovered_fields(lab: Lab) -> Observation:
    group = await lab.group()
    unknown: dict[str, Json] = {
        "extra": {"extra": 1},
        "process.extra": {"process": process(extra=1)},
        "linux.extra": {"linux": {"extra": {}}},
        "linux.resources.extra": {"linux": {"resources": {"extra": 1}}},
        "domainname": {"domainname": "evil"},
        "linux.personality": {"linux": {"personality": {"domain": "LINUX32"}}},
        "linux.timeOffsets": {"linux": {"timeOffsets": {"monotonic": {"secs": 1}}}},
        "linux.mountLabel": {"linux": {"mountLabel": "x"}},
        "linux.sysctl": {"linux": {"sysctl": {"kernel.core_pattern": "|/evil"}}},
        "vm": {"vm": {"hypervisor": {"path": "/evil"}}},
    }
    seen = await _document_refused(group, unknown)
    text = json.dumps(document(group.probe))
    for what, bad in {
        "a name twice": text[:-1] + ', "mounts": []}',
        "no JSON": text[:-1],
        "something behind it": text + "{}",
        "not a number": text[:-1] + ', "ociVersion": NaN}',
    }.items():
        call = group.rig.create(group.probe, oci_spec=bad.encode())
        seen.append(await refused(what, call, Code.INVALID_ARGUMENT))
    await group.require_untouched()
    await _constants_have_no_effect(group)
    return all_of(*seen)


async def _constants_have_no_effect(group: Group) -> None:
    """The lawful container with every constant field set to what an attacker would like; it must get no device."""
    container = await group.assemble()
    linux: Json = {
        "namespaces": [{"type": "network", "path": "/proc/1/ns/net"}, {"type": "mount", "path": "/proc/1/ns/mnt"}],
        "cgroupsPath": "/../../x",
        "rootfsPropagation": "shared",
        "maskedPaths": [],
        "readonlyPaths": [],
        "resources": {"devices": [{"allow": True, "access": "rwm"}]},
    }  # fmt: skip
    hostile = process(
        IDLE, rlimits=[{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}], oomScoreAdj=-1000
    )
    notes = {"io.katacontainers.config.agent.kernel_params": "agent.debug_console"}
    spec = document(container, linux=linux, process=hostile, annotations=notes, hostname="evil")
    await group.rig.create(container, spec=spec)
    await group.rig.start(container)
    status = await group.rig.execute_and_wait(container, MAKE_NODE)
    await group.rig.remove(container)
    if status not in (EPERM, _EACCES):
        raise AttackError(f"a device node could be used: {status}")


def _mount(**changed: object) -> Json:
    return {**DATA_MOUNT, "source": "sandbox:///data/x", **changed}


async def _mounts_stopped(lab: Lab, mounts: Sequence[tuple[str, Json]]) -> Observation:
    group = await lab.group()
    seen = []
    for what, mount in mounts:
        spec = document(group.probe, mounts=[*default_mounts(), mount])
        seen.append(await stopped(what, group.rig.create(group.probe, spec=spec)))
    if not any("process.mounts" in found.reason_codes for found in seen):
        raise AttackError(f"no mount was judged by the policy: {seen[0].observed}")
    await group.require_untouched()
    return all_of(*seen)


@attack("M3g", "alters the source of a mount", Must.DENIED)
async def mount_source(lab: Lab) -> Observation:
    sources = (
        "sandbox:///other/x", "/", "/etc", "/run/parma", f"{pod_directory(POD)}/sandboxMounts/other",
        "sandbox:///data/../../../x", f"{pod_directory('ef' * 32)}/sandboxMounts/data/x",
    )  # fmt: skip
    return await _mounts_stopped(lab, [(source, _mount(source=source)) for source in sources])


@attack("M3h", "alters the destination of a mount", Must.DENIED)
async def mount_destination(lab: Lab) -> Observation:
    places = ("/etc", "/", "/data/x", "/proc", "/security-context", "data")
    changes: list[tuple[str, Json]] = [(place, _mount(destination=place)) for place in places]
    changes += [("other options", _mount(options=["rbind", "rshared", "rw", "suid"]))]
    changes += [("another type", _mount(type="ext4"))]
    return await _mounts_stopped(lab, changes)


@attack("K2", "gives a mount an empty source, so that anything may stand there", Must.DENIED)
async def empty_source(lab: Lab) -> Observation:
    places = ("/data", "/etc/hosts", "/var/run/secrets/kubernetes.io/serviceaccount", "/dev/shm")  # noqa: S108
    cases = [(place, _mount(source="", destination=place)) for place in places]
    cases.append(("a share of the host's", _mount(source="plan9://x")))
    return await _mounts_stopped(lab, cases)


@attack("K9", "hands over OCI hooks, in all six lists", Must.DENIED)
async def hooks(lab: Lab) -> Observation:
    group = await lab.group()
    lists = (
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    )
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "id"]}
    cases: dict[str, Json] = {f"hooks.{name}": {"hooks": {name: [hook]}} for name in lists}
    seen = await _document_refused(group, cases)
    await group.require_untouched()
    return all_of(*seen)


@attack(
    "K21",
    "asks for devices, unified, rdma, and a sysctl of the whole kernel",
    Must.DENIED,
    Stage.BARE,
)
async def resources(lab: Lab) -> Observation:
    rig, _ = await lab.bare()
    seen = []
    for name in (
        "kernel.core_pattern",
        "kernel/core_pattern",
        "vm.overcommit_memory",
        "fs.file-max",
    ):
        request = v1.SetupSandboxRequest(
            sandbox_id=POD, hostname="x", sysctls=[v1.Sysctl(name=name, value="1")]
        )
        seen.append(await refused(name, rig.agent.setup_sandbox(request), Code.INVALID_ARGUMENT))
    group = await lab.group()  # the last of its stage: from here on the group exists
    device = {"type": "c", "path": "/dev/kmsg", "major": 1, "minor": 11}
    cases: dict[str, Json] = {
        "linux.devices": {"linux": {"devices": [device]}},
        "linux.resources.unified": {"linux": {"resources": {"unified": {"memory.max": "max"}}}},
        "linux.resources.rdma": {"linux": {"resources": {"rdma": {"mlx5_1": {"hcaHandles": 3}}}}},
        "linux.intelRdt": {"linux": {"intelRdt": {"closID": "x"}}},
        "linux.netDevices": {"linux": {"netDevices": {"eth0": {}}}},
    }
    seen += await _document_refused(group, cases)
    await group.require_untouched()
    return all_of(*seen)


@attack("K8", "looks for a workload's secret in errors, traces and the console", Must.NO_EFFECT)
async def secret_in_logs(lab: Lab) -> Observation:
    group = await lab.group()
    spec = document(group.probe, process=process(env=[PATH, _SECRET]))
    try:
        await group.rig.create(group.probe, spec=spec)
    except ApiError as error:
        told = error.message + json.dumps(parse_decision(error.message))
    else:
        raise AttackError("the variable was let through")
    value = _SECRET.partition("=")[2]
    if "SECRET" not in told:
        raise AttackError(f"the refusal does not name the variable: {told[:200]}")
    if value in told or value in group.rig.console():
        raise AttackError("the variable's value is told to the host")
    await group.require_untouched()
    return Observation("the refusal names the variable and redacts its value", ("redacted",))
