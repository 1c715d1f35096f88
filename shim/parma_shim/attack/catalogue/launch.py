"""What the VM is launched from, and the policy that it is handed."""

from __future__ import annotations

from pathlib import Path

from parma_api.gen.parma.agent import v1
from parma_api.launch import Variant
from parma_api.status import Code
from parma_shim.attack import images
from parma_shim.attack.lab import Lab
from parma_shim.attack.outcome import AttackError, Observation, all_of, refused
from parma_shim.attack.registry import Must, Stage, attack
from parma_shim.vmm.errors import BootFailureError

MISMATCH = "policy.host_data_mismatch"
_SUPERBLOCK = 1024
"""Of erofs: the first that is read of a root."""


@attack("K6", "hands the VM a policy whose digest is not HOST_DATA", Must.REFUSES, Stage.FRESH)
async def another_policy(lab: Lab) -> Observation:
    rig = await lab.fresh()
    seen = []
    for what, text in {
        "one byte of the policy changed": changed_byte(rig.policy),
        "one byte more": rig.policy + b"\n",
        "one byte less": rig.policy[:-1],
        "no policy": b"",
    }.items():
        found = await refused(what, rig.set_policy(text), Code.INVALID_ARGUMENT)
        if found.reason_codes != (MISMATCH,):
            raise AttackError(f"{what}: refused, but for {', '.join(found.reason_codes)}")
        seen.append(found)
    request = v1.PutFilesRequest()
    await refused("a call without a policy", rig.agent.put_files(request), Code.PERMISSION_DENIED)
    await rig.require_stance(v1.Stance(v1.Stance.DENY_ALL))
    return all_of(*seen)


def changed_byte(text: bytes) -> bytes:
    """The text with one bit changed, in its middle."""
    at = len(text) // 2
    return text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]


@attack("F1", "starts the VM from a changed root file system", Must.DETECTED, Stage.OWN)
async def another_root(lab: Lab) -> Observation:
    folder = _copy(lab, "changed-root")
    images.flip_root(folder, _SUPERBLOCK)
    return await _no_boot(lab, folder, "one bit of the root changed")


@attack(
    "F2", "puts another agent into the root, with a hash tree to match", Must.DETECTED, Stage.OWN
)
async def another_agent(lab: Lab) -> Observation:
    folder = _copy(lab, "other-agent")
    images.flip_root_with_tree(folder, _agent_block(folder))
    return await _no_boot(lab, folder, "root and hash tree changed together")


def _copy(lab: Lab, name: str) -> Path:
    return images.copy_image(images.installed(lab.environment, Variant.STUB), lab.folder / name)


def _agent_block(folder: Path) -> int:
    """Somewhere in the middle of the root's data."""
    return (folder / "root.img").stat().st_size // 2


async def _no_boot(lab: Lab, folder: Path, what: str) -> Observation:
    """The VM must end before its agent answers, and by dm-verity's doing."""
    try:
        async with lab.boot(lab.policy, image=folder, attempts=1):
            raise AttackError(f"{what}: the VM came up")
    except BootFailureError as error:
        console = lab.last_console
        if "verity" not in console and "erofs" not in console:
            raise AttackError(f"{what}: no boot, but not for verity: {error.message}") from error
    said = next(line for line in console.splitlines() if "verity" in line or "erofs" in line)
    return Observation(f"{what}: the VM does not come up: {said.strip()}", ("verity",))


@attack("K19", "offers the release image a stub in the hardware's place", Must.REFUSES, Stage.OWN)
async def stub_for_hardware(lab: Lab) -> Observation:
    release = images.installed(lab.environment, Variant.RELEASE)
    folder = images.copy_image(release, lab.folder / "release")
    images.called_stub(folder)
    async with lab.boot(lab.policy, image=folder) as rig:
        variant = (await rig.health()).variant
        if variant != Variant.RELEASE:
            raise AttackError(f"not the release image: {variant}")
        seen = await refused(
            "the good policy, and a stub", rig.set_policy(rig.policy), Code.FAILED_PRECONDITION
        )
        await rig.require_stance(v1.Stance(v1.Stance.DENY_ALL))
    return seen
