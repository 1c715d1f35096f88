"""The catalogue of `parma attack`, played by a malicious shim in real VMs.

The order is that of `Stage`: before the policy, before the group, with it, what may break the VM, VMs of their own.
"""

from __future__ import annotations

import pytest

from parma_shim.attack.lab import Lab
from parma_shim.attack.play import play_one
from parma_shim.attack.policy import READ
from parma_shim.attack.registry import catalogue

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(200)]


async def came_to(lab: Lab, name: str, *codes: str) -> None:
    """The attack came to what it must come to, and for these reasons among others."""
    row = await play_one(lab, catalogue()[name])
    assert row.ok, row.observed
    assert set(codes) <= set(row.reason_codes), row.reason_codes


async def test_K6_another_policy(lab: Lab) -> None:
    await came_to(lab, "K6", "policy.host_data_mismatch")


async def test_K25_out_of_qemu(lab: Lab) -> None:
    await came_to(lab, "K25", "confined")


async def test_K10_other_storage(lab: Lab) -> None:
    await came_to(lab, "K10", "device.filesystem_not_allowed")


async def test_K14_unencrypted_scratch(lab: Lab) -> None:
    await came_to(lab, "K14", "scratch.unencrypted")


async def test_K21_devices_and_sysctls(lab: Lab) -> None:
    await came_to(lab, "K21", "invalid_argument")


async def test_F3a_fabricated_layer(lab: Lab) -> None:
    await came_to(lab, "F3a", "device.hash_unknown")


async def test_F3b_altered_layer(lab: Lab) -> None:
    await came_to(lab, "F3b", "eio", "data_loss")


async def test_F3c_own_verity_metadata(lab: Lab) -> None:
    await came_to(lab, "F3c", "invalid_argument", "device.hash_unknown")


async def test_F4a_unlisted_layers(lab: Lab) -> None:
    await came_to(lab, "F4a", "device.hash_unknown")


async def test_F4b_over_a_target_in_use(lab: Lab) -> None:
    await came_to(lab, "F4b", "already_exists")


async def test_F5a_any_set_of_layers(lab: Lab) -> None:
    await came_to(lab, "F5a", "overlay.no_match")


async def test_F5b_other_directories(lab: Lab) -> None:
    await came_to(lab, "F5b", "not_found")


async def test_F6a_other_variables(lab: Lab) -> None:
    await came_to(lab, "F6a", "process.env")


async def test_F6b_other_command(lab: Lab) -> None:
    await came_to(lab, "F6b", "process.command")


async def test_F7a_under_a_mounted_layer(lab: Lab) -> None:
    await came_to(lab, "F7a", "eio")


async def test_F7b_scratch_is_read(lab: Lab) -> None:
    await came_to(lab, "F7b", "ciphertext")


async def test_K1_files_outside(lab: Lab) -> None:
    await came_to(lab, "K1", "invalid_argument")


async def test_K2_empty_mount_source(lab: Lab) -> None:
    await came_to(lab, "K2", "process.mounts")


async def test_K4_device_node(lab: Lab) -> None:
    await came_to(lab, "K4", "eperm")


async def test_K5_no_layers(lab: Lab) -> None:
    await came_to(lab, "K5", "invalid_argument")


async def test_K7_null_cipher_header(lab: Lab) -> None:
    await came_to(lab, "K7", "fresh")


async def test_K8_secret_in_refusals(lab: Lab) -> None:
    await came_to(lab, "K8", "redacted")


async def test_K9_hooks(lab: Lab) -> None:
    await came_to(lab, "K9", "invalid_argument")


async def test_K13_unmounts(lab: Lab) -> None:
    await came_to(lab, "K13", "failed_precondition")


async def test_K16_another_network(lab: Lab) -> None:
    await came_to(lab, "K16", "failed_precondition")


async def test_K20_vsock_from_a_container(lab: Lab) -> None:
    await came_to(lab, "K20", "eafnosupport")


async def test_K23_malformed_requests(lab: Lab) -> None:
    await came_to(lab, "K23", "invalid_argument", "unimplemented")


async def test_K24_hanging_action(lab: Lab) -> None:
    await came_to(lab, "K24", "killed")


async def test_M1a_covered_fields(lab: Lab) -> None:
    await came_to(
        lab,
        "M1a",
        "process.working_dir",
        "process.user",
        "process.capabilities",
        "process.seccomp",
        "process.mounts",
        "process.privileged",
    )


async def test_M1b_uncovered_fields(lab: Lab) -> None:
    await came_to(lab, "M1b", "invalid_argument")


async def test_M2a_shortened_or_exchanged(lab: Lab) -> None:
    await came_to(lab, "M2a", "eio", "invalid_argument")


async def test_M3a_order_of_the_overlay(lab: Lab) -> None:
    await came_to(lab, "M3a", "overlay.no_match")


async def test_M3b_rogue_layer(lab: Lab) -> None:
    await came_to(lab, "M3b", "overlay.no_match")


async def test_M3c_added_variable(lab: Lab) -> None:
    await came_to(lab, "M3c", "process.env")


async def test_M3d_altered_variable(lab: Lab) -> None:
    await came_to(lab, "M3d", "process.env")


async def test_M3e_removed_variable(lab: Lab) -> None:
    await came_to(lab, "M3e", "process.env_required")


async def test_M3f_altered_command(lab: Lab) -> None:
    await came_to(lab, "M3f", "process.command")


async def test_M3g_mount_source(lab: Lab) -> None:
    await came_to(lab, "M3g", "process.mounts")


async def test_M3h_mount_destination(lab: Lab) -> None:
    await came_to(lab, "M3h", "process.mounts")


async def test_M5a_command_in_the_machine(lab: Lab) -> None:
    await came_to(lab, "M5a", "process.command")


async def test_M5b_command_in_a_container(lab: Lab) -> None:
    await came_to(lab, "M5b", "process.command", "container.not_started")


async def test_M5c_later_layers(lab: Lab) -> None:
    await came_to(lab, "M5c", "device.hash_unknown", "policy.already_set")


async def test_M6a_standard_streams(lab: Lab) -> None:
    await came_to(lab, "M6a", "withheld")


async def test_M6b_stacks(lab: Lab) -> None:
    await came_to(lab, "M6b", "flag.off")


async def test_M6c_properties(lab: Lab) -> None:
    await came_to(lab, "M6c", "flag.off", "port.not_allowed")


async def test_after_all_refusals_the_lawful_container_still_runs(lab: Lab) -> None:
    group = await lab.group()
    await group.require_untouched()
    await group.rig.create(group.probe)
    await group.rig.start(group.probe)
    assert await group.rig.execute_and_wait(group.probe, READ) == 0
    await group.rig.remove(group.probe)
    group.probe = await group.assemble()


async def test_F7c_scratch_is_written(lab: Lab) -> None:
    await came_to(lab, "F7c", "eio")


async def test_M2b_scratch_is_moved(lab: Lab) -> None:
    await came_to(lab, "M2b", "eio")


async def test_M4b_garbage(lab: Lab) -> None:
    await came_to(lab, "M4b", "container.already_started", "signal.not_allowed")


async def test_F1_changed_root(lab: Lab) -> None:
    await came_to(lab, "F1", "verity")


async def test_F2_other_agent(lab: Lab) -> None:
    await came_to(lab, "F2", "verity")


async def test_K19_stub_for_hardware(lab: Lab) -> None:
    await came_to(lab, "K19", "failed_precondition")
