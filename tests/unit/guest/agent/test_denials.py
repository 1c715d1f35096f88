"""What the host must not be able to do: each is refused, with a reason, and changes nothing."""

# ruff: noqa: ASYNC110, ASYNC240 (the runtime is asked by another task)

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from parma_api.gen.parma.agent.v1 import (
    AgentStub,
    CreateContainerRequest,
    DumpStacksRequest,
    ExecExternalRequest,
    ExecProcessRequest,
    ForwardPortRequest,
    HealthRequest,
    ListProcessesRequest,
    LoadFragmentRequest,
    MountLayerRequest,
    MountOverlayRequest,
    MountScratchRequest,
    PauseGroupRequest,
    PutFilesRequest,
    ResizeTerminalRequest,
    ResumeGroupRequest,
    ScsiAddress,
    SetPolicyRequest,
    SetupSandboxRequest,
    ShutdownContainerRequest,
    SignalProcessRequest,
    Stance,
    StartContainerRequest,
    StatsRequest,
    UnmountLayerRequest,
    UnmountOverlayRequest,
    UnmountScratchRequest,
    UpdateResourcesRequest,
    WaitProcessRequest,
)
from parma_api.policy.refusal import parse_decision
from parma_api.status import ApiError, Code
from parma_api.volumes import layer_path, pod_directory, root_path, scratch_path
from parma_guest.agent.front import handler_name, offered
from parma_guest.policy.methods import WITHOUT_POLICY
from tests.fixtures.group import (
    FOREIGN,
    LAYERS,
    POD,
    Driver,
    container_id,
    description,
    oci_document,
    policy,
    process,
)

ONE = container_id(1)
OTHER_POD = "e" * 64


async def refused(awaitable: Any, *codes: str) -> str:
    """Refused by the policy, with these reason codes among others."""
    with pytest.raises(ApiError) as caught:
        await awaitable
    assert caught.value.code is Code.PERMISSION_DENIED, caught.value.message
    decision = parse_decision(caught.value.message)
    assert decision is not None
    assert set(codes) <= set(decision["reason_codes"]), decision["reason_codes"]  # type: ignore[arg-type]
    return caught.value.message


async def fails(awaitable: Any, code: Code, why: str = "") -> None:
    """Refused by the agent itself, with this status and these words."""
    with pytest.raises(ApiError) as caught:
        await awaitable
    assert caught.value.code is code, caught.value.message
    assert why in caught.value.message


SOUND: dict[str, Any] = {
    "LoadFragment": LoadFragmentRequest(),
    "SetupSandbox": SetupSandboxRequest(sandbox_id=POD, hostname="x"),
    "PutFiles": PutFilesRequest(),
    "MountScratch": MountScratchRequest(
        device=ScsiAddress(0, 1), target=pod_directory(POD), encrypted=True, filesystem="ext4"
    ),
    "UnmountScratch": UnmountScratchRequest(target=pod_directory(POD)),
    "MountLayer": MountLayerRequest(device=ScsiAddress(0, 1), target=layer_path(1)),
    "UnmountLayer": UnmountLayerRequest(target=layer_path(1)),
    "MountOverlay": MountOverlayRequest(
        container_id=ONE, layer_paths=[layer_path(1)], target=root_path(ONE)
    ),
    "UnmountOverlay": UnmountOverlayRequest(container_id=ONE, target=root_path(ONE)),
    "CreateContainer": CreateContainerRequest(
        container_id=ONE, oci_spec=json.dumps(oci_document(ONE)).encode()
    ),
    "StartContainer": StartContainerRequest(container_id=ONE),
    "ExecProcess": ExecProcessRequest(
        container_id=ONE, exec_id="e", oci_process=json.dumps(process()).encode()
    ),
    "ExecExternal": ExecExternalRequest(exec_id="e", args=["sh"], working_dir="/"),
    "SignalProcess": SignalProcessRequest(container_id=ONE, signal=9),
    "ShutdownContainer": ShutdownContainerRequest(container_id=ONE),
    "WaitProcess": WaitProcessRequest(container_id=ONE),
    "ResizeTerminal": ResizeTerminalRequest(container_id=ONE),
    "UpdateResources": UpdateResourcesRequest(container_id=ONE),
    "PauseGroup": PauseGroupRequest(),
    "ResumeGroup": ResumeGroupRequest(),
    "Stats": StatsRequest(container_id=ONE),
    "ListProcesses": ListProcessesRequest(container_id=ONE),
    "DumpStacks": DumpStacksRequest(),
    "ForwardPort": ForwardPortRequest(port=80, stream=1),
}


async def call(client: AgentStub, method: str) -> None:
    await getattr(client, handler_name(method))(SOUND[method])


async def test_in_deny_all_nothing_works(driver: Driver) -> None:
    assert SOUND.keys() == set(offered()) - WITHOUT_POLICY
    driver.plug(1, LAYERS[0])
    for method in SOUND:
        with pytest.raises(ApiError):
            await call(driver.rig.client, method)
    assert driver.rig.storage.actions == []
    assert driver.rig.runtime.calls == []
    assert driver.rig.network.hostname is None
    health = await driver.rig.client.health(HealthRequest())
    assert health.stance is Stance.DENY_ALL


# The policy


async def test_one_byte_changed_in_the_policy(driver: Driver) -> None:
    for text in (driver.text + b"\n", driver.text[:-1], b"\xef\xbb\xbf" + driver.text, b""):
        with pytest.raises(ApiError, match="HOST_DATA"):
            await driver.rig.client.set_policy(SetPolicyRequest(policy=text))
    await driver.set_policy()


async def test_a_second_policy(driver: Driver) -> None:
    await driver.set_policy()
    with pytest.raises(ApiError, match="set already"):
        await driver.set_policy()


async def test_no_report_no_policy(driver: Driver) -> None:
    """K19: the host lets report requests fail."""
    driver.rig.processor.fail = True
    await fails(driver.set_policy(), Code.FAILED_PRECONDITION, "no report from fake")
    driver.rig.processor.fail = False
    await driver.set_policy()


async def test_a_replayed_report(driver: Driver) -> None:
    driver.rig.processor.report_data = bytes(64)
    await fails(driver.set_policy(), Code.DATA_LOSS, "not the one")


async def test_attachments_are_bounded(driver: Driver) -> None:
    request = SetPolicyRequest(policy=driver.text, certificates=bytes((256 << 10) + 1))
    await fails(driver.rig.client.set_policy(request), Code.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize(
    ("driver", "allowed"),
    [(policy(allow_runtime_logging=True), [True]), (policy(), [])],
    indirect=["driver"],
)
async def test_the_log_needs_the_policy(driver: Driver, allowed: list[bool]) -> None:
    await driver.set_policy()
    assert driver.rig.logging_allowed == allowed


# Layers and overlays


async def test_a_foreign_layer(ready: Driver) -> None:
    await refused(ready.mount_layer(5, FOREIGN), "device.hash_unknown")
    assert not any("m5" in action for action in ready.rig.storage.actions)


async def test_layers_in_the_wrong_order(ready: Driver) -> None:
    paths = [layer_path(0), layer_path(1)]
    await refused(ready.mount_overlay(ONE, layer_paths=paths), "overlay.no_match")


async def test_paths_are_judged_in_plain_form(ready: Driver) -> None:
    strange = [f"/run/mounts/scsi/../scsi//m{number}/" for number in (1, 0)]
    target = f"/run/gcs/c/./{ONE}/x/../rootfs/"
    await ready.mount_overlay(ONE, layer_paths=strange, target=target)
    assert ready.rig.storage.snapshot().overlay_targets == {root_path(ONE): True}


async def test_directories_that_are_no_layers(ready: Driver) -> None:
    for paths in (["/etc"], [layer_path(9)], [pod_directory(POD)], []):
        with pytest.raises(ApiError):
            await ready.mount_overlay(ONE, layer_paths=paths)


async def test_an_overlay_of_another_containers_scratch(ready: Driver) -> None:
    for scratch in (scratch_path(POD, container_id(2)), "/etc", scratch_path(OTHER_POD, ONE)):
        with pytest.raises(ApiError):
            await ready.mount_overlay(ONE, scratch_path=scratch)


async def test_what_is_in_use_is_not_unmounted(ready: Driver) -> None:
    await ready.run()
    client = ready.rig.client
    for request in ("UnmountLayer", "UnmountOverlay", "UnmountScratch"):
        await fails(call(client, request), Code.FAILED_PRECONDITION, "in use")


async def test_another_pods_scratch(ready: Driver) -> None:
    await fails(ready.mount_scratch(OTHER_POD), Code.FAILED_PRECONDITION, "no other's")


@pytest.mark.parametrize("driver", [policy(allow_unencrypted_scratch=True)], indirect=True)
async def test_scratch_is_encrypted_whatever_the_policy(driver: Driver) -> None:
    """K14."""
    await driver.set_policy()
    await fails(driver.mount_scratch(encrypted=False), Code.INVALID_ARGUMENT, "always encrypted")
    assert driver.rig.storage.actions == []


async def test_unencrypted_scratch_is_denied(driver: Driver) -> None:
    await driver.set_policy()
    await refused(driver.mount_scratch(encrypted=False), "scratch.unencrypted")


async def test_a_denial_fixes_no_pod(driver: Driver) -> None:
    await driver.set_policy()
    await refused(driver.mount_scratch(OTHER_POD, encrypted=False))
    await driver.mount_scratch(POD)


# Containers


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"args": ["sleep", "1"]}, "process.command"),
        ({"env": ["PATH=/usr/bin:/bin", "EVIL=1"]}, "process.env"),
        ({"env": ["PATH=/evil"]}, "process.env"),
        ({"env": []}, "process.env_required"),
        ({"cwd": "/tmp"}, "process.working_dir"),
        ({"user": {"uid": 0, "gid": 0, "umask": 0}}, "process.user"),
        ({"capabilities": {"bounding": ["CAP_SYS_ADMIN"]}}, "process.capabilities"),
    ],
)
async def test_another_process(ready: Driver, change: dict[str, Any], code: str) -> None:
    await ready.mount_overlay(ONE)
    document = oci_document(ONE)
    document["process"] |= change
    await refused(ready.create(ONE, document), code)
    assert ready.rig.runtime.calls == []
    await ready.create(ONE)  # a denial changes nothing


async def test_another_mount(ready: Driver) -> None:
    await ready.mount_overlay(ONE)
    for source in ("sandbox:///other/x", "/etc", f"{pod_directory(POD)}/sandboxMounts/other"):
        document = oci_document(ONE)
        mount = {"destination": "/data", "type": "bind", "source": source}
        document["mounts"].append(mount | {"options": ["rbind", "rshared", "rw"]})
        await refused(ready.create(ONE, document), "process.mounts")


async def test_privileged(ready: Driver) -> None:
    await ready.mount_overlay(ONE)
    await refused(ready.create(ONE, privileged=True), "process.privileged")


async def test_another_seccomp_profile(ready: Driver) -> None:
    await ready.mount_overlay(ONE)
    document = oci_document(ONE, linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}})
    await refused(ready.create(ONE, document), "process.seccomp")


async def test_a_container_that_was_never_assembled(ready: Driver) -> None:
    await refused(ready.create(ONE), "container.unknown")


async def test_a_container_twice(ready: Driver) -> None:
    await ready.run()
    await refused(ready.create(ONE), "container.already_started")
    await ready.rig.client.shutdown_container(ShutdownContainerRequest(container_id=ONE))
    await refused(ready.create(ONE), "container.already_started")


async def test_a_root_path_of_another_container(ready: Driver) -> None:
    await ready.mount_overlay(ONE)
    document = oci_document(ONE, root={"path": root_path(container_id(2))})
    await fails(ready.create(ONE, document), Code.INVALID_ARGUMENT, "root.path")


@pytest.mark.parametrize(
    "container", ["", "x", "../x", "1" * 63, "1" * 65, "A" * 64, "1" * 64 + "\n"]
)
async def test_ids_of_another_form(ready: Driver, container: str) -> None:
    await fails(ready.create(container, oci_document(ONE)), Code.INVALID_ARGUMENT)
    await fails(ready.execute(container), Code.INVALID_ARGUMENT)
    request = ShutdownContainerRequest(container_id=container)
    await fails(ready.rig.client.shutdown_container(request), Code.INVALID_ARGUMENT)


@pytest.mark.parametrize("exec_id", ["", "../x", "a/b", ".x", "x" * 129, "x\n"])
async def test_exec_ids_of_another_form(ready: Driver, exec_id: str) -> None:
    await ready.run()
    await fails(ready.execute(ONE, exec_id=exec_id), Code.INVALID_ARGUMENT)


async def test_an_exec_that_is_not_listed(ready: Driver) -> None:
    await ready.run()
    await refused(ready.execute(ONE, ("sh",)), "process.command")
    await refused(ready.execute(ONE, ("sleep",)), "process.command")
    await refused(ready.execute(container_id(2)), "container.not_started")


async def test_signals_that_are_not_listed(ready: Driver) -> None:
    await ready.run()
    client = ready.rig.client
    for number in (1, 19):
        request = SignalProcessRequest(container_id=ONE, signal=number)
        await refused(client.signal_process(request), "signal.not_allowed")
    await fails(
        client.signal_process(SignalProcessRequest(container_id=ONE, signal=65)),
        Code.INVALID_ARGUMENT,
    )


@pytest.mark.parametrize(
    "driver",
    [policy(description(exec_processes=[{"command": ["sleep"], "signals": []}]))],
    indirect=True,
)
async def test_a_signal_to_all_is_judged_for_each(ready: Driver) -> None:
    await ready.run()
    await ready.execute(ONE, ("sleep",))
    request = SignalProcessRequest(container_id=ONE, signal=15, all=True)
    await refused(ready.rig.client.signal_process(request), "signal.not_allowed")
    request.signal = 9
    await ready.rig.client.signal_process(request)


async def test_a_signal_to_a_process_of_the_machine(ready: Driver) -> None:
    request = SignalProcessRequest(exec_id="x", signal=9)
    await refused(ready.rig.client.signal_process(request))


@pytest.mark.parametrize("driver", [policy(allow_properties_access=False)], indirect=True)
async def test_properties_and_stacks(ready: Driver) -> None:
    await ready.run()
    await refused(call(ready.rig.client, "Stats"), "flag.off")
    await refused(call(ready.rig.client, "ListProcesses"), "flag.off")
    await refused(call(ready.rig.client, "DumpStacks"), "flag.off")


async def test_the_network_is_set_once(ready: Driver) -> None:
    """K16."""
    request = SetupSandboxRequest(sandbox_id=POD, hostname="again")
    await fails(ready.rig.client.setup_sandbox(request), Code.FAILED_PRECONDITION)
    request.sandbox_id = OTHER_POD
    await fails(ready.rig.client.setup_sandbox(request), Code.FAILED_PRECONDITION, "no other's")


async def test_values_of_variables_are_not_in_the_refusal(ready: Driver) -> None:
    await ready.mount_overlay(ONE)
    document = oci_document(ONE)
    document["process"]["env"] = ["SECRET=canary-0815"]
    message = await refused(ready.create(ONE, document))
    assert "canary-0815" not in json.dumps(parse_decision(message))


# Actions that fail


async def test_a_failed_creation_can_be_tried_again(ready: Driver) -> None:
    await ready.mount_overlay(ONE)
    ready.rig.runtime.fail_next = "create"
    await fails(ready.create(ONE), Code.FAILED_PRECONDITION, "told to fail")
    assert "started" not in ready.rig.gate.metadata().collections
    assert ready.rig.sources.pinned == {}
    assert list(Path(ready.rig.layout.root(ONE)).glob("security-*")) == []  # type: ignore[arg-type]
    await ready.create(ONE)


async def test_a_missing_program(ready: Driver) -> None:
    driver = ready
    await driver.run()
    driver.rig.runtime.fail_next = "exec"
    await fails(driver.execute(ONE), Code.FAILED_PRECONDITION)
    await driver.execute(ONE)  # the id is free again


async def test_a_failed_mount_books_nothing(ready: Driver) -> None:
    ready.rig.storage.fail_next = "mount_overlay"
    await fails(ready.mount_overlay(ONE), Code.FAILED_PRECONDITION)
    assert "matches" not in ready.rig.gate.metadata().collections
    await ready.mount_overlay(ONE)


async def test_a_failed_undo_makes_the_group_inconsistent(ready: Driver) -> None:
    await ready.mount_overlay(ONE)
    ready.rig.storage.fail_next, ready.rig.storage.undo_fails = "mount_overlay", True
    with pytest.raises(ApiError):
        await ready.mount_overlay(container_id(2))
    health = await ready.rig.client.health(HealthRequest())
    assert health.stance is Stance.INCONSISTENT
    await refused(ready.create(ONE), "state.inconsistent")
    for method in ("SetupSandbox", "PutFiles", "StartContainer", "UpdateResources"):
        await fails(call(ready.rig.client, method), Code.FAILED_PRECONDITION)


@pytest.mark.parametrize(
    "driver",
    [policy(description(exec_processes=[{"command": ["hang"], "signals": []}]))],
    indirect=True,
)
async def test_kill_does_not_wait_for_ever_behind_a_hung_action(
    ready: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K24."""
    from parma_guest.policy import methods

    rows = {**methods.GATED, "ExecProcess": methods.Row(methods.GATED["ExecProcess"].points, 1.0)}
    monkeypatch.setattr("parma_guest.policy.interceptor.GATED", rows)
    await ready.run()
    hung = asyncio.ensure_future(ready.execute(ONE, ("hang",)))
    while ("exec", ONE) not in ready.rig.runtime.calls:
        await asyncio.sleep(0.001)
    await ready.rig.client.signal_process(SignalProcessRequest(container_id=ONE, signal=9))
    await ready.rig.client.wait_process(WaitProcessRequest(container_id=ONE))
    await fails(hung, Code.DEADLINE_EXCEEDED)


@pytest.mark.parametrize("driver", [policy(description(command=["hang"]))], indirect=True)
async def test_one_containers_hung_action_does_not_hold_up_another(
    ready: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parma_guest.policy import methods

    rows = {
        **methods.GATED,
        "CreateContainer": methods.Row(methods.GATED["CreateContainer"].points, 1.0),
    }
    monkeypatch.setattr("parma_guest.policy.interceptor.GATED", rows)
    await ready.mount_overlay(ONE)
    hung = asyncio.ensure_future(ready.create(ONE, oci_document(ONE, ("hang",))))
    while ("create", ONE) not in ready.rig.runtime.calls:
        await asyncio.sleep(0.001)
    await ready.mount_overlay(container_id(2))
    assert not hung.done()
    await fails(hung, Code.DEADLINE_EXCEEDED)
    assert "started" not in ready.rig.gate.metadata().collections
