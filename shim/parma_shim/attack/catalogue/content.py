"""Files by content, the scratch disk from the host's side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from parma_api.gen.parma.agent import v1
from parma_api.status import Code
from parma_api.volumes import pod_directory, scratch_path
from parma_shim.attack.lab import Group, Lab
from parma_shim.attack.outcome import AttackError, Observation, all_of, denied, refused, stopped
from parma_shim.attack.policy import READ_BACK, WRITE
from parma_shim.attack.program import CANARY_TEXT, EILSEQ, EIO
from parma_shim.attack.registry import Must, Stage, attack
from parma_shim.attack.rig import POD, Rig
from parma_shim.attack.scratch_file import (
    BLOCK,
    LUKS_MAGIC,
    make_scratch_file,
    snapshot,
    used_blocks,
    write_blocks,
)

_FILE = v1.FileEntryKind(0)
_LINK = v1.FileEntryKind(2)


def _file(path: str) -> v1.FileEntry:
    return v1.FileEntry(path=path, kind=_FILE, mode=0o644, content=b"evil")


def _link(path: str, target: str) -> v1.FileEntry:
    return v1.FileEntry(path=path, kind=_LINK, mode=0o777, content=target.encode())


@attack("K1", "writes files outside the pod's directory, by links and by paths", Must.DENIED)
async def outside(lab: Lab) -> Observation:
    group = await lab.group()

    base = "sandboxMounts"
    await group.rig.agent.put_files(
        v1.PutFilesRequest(entries=[_file(f"{base}/k1/real"), _link(f"{base}/k1/inside", "real")])
    )
    cases = {
        "..": [_file("../evil")],
        ".. further down": [_file(f"{base}/../../evil")],
        "absolute": [_file("/etc/passwd")],
        "a link with an absolute target": [_link(f"{base}/k1/abs", "/etc")],
        "a link upwards": [_link(f"{base}/k1/up", "../../../etc")],
        "a file beneath a link": [_link(f"{base}/k1/l", "real"), _file(f"{base}/k1/l/evil")],
        "a file beneath an older link": [_file(f"{base}/k1/inside/evil")],
        "a network file as a link": [_link("hosts", "real")],
        "neither": [_file("scratch/evil")],
    }
    seen = []
    for what, entries in cases.items():
        request = v1.PutFilesRequest(entries=entries)
        seen.append(await _not_written(group, what, request))
    whole = v1.PutFilesRequest(entries=[], replace="scratch")
    seen.append(await _not_written(group, "another directory replaced", whole))
    await group.require_untouched()
    return all_of(*seen)


async def _not_written(group: Group, what: str, request: v1.PutFilesRequest) -> Observation:
    """A kernel's refusal (ELOOP, ENOTDIR) counts too: it is the one that no race can win against."""
    call = group.rig.agent.put_files(request)
    return await refused(
        what,
        call,
        Code.INVALID_ARGUMENT,
        Code.FAILED_PRECONDITION,
        Code.INTERNAL,
        Code.PERMISSION_DENIED,
    )


@attack(
    "K14", "leaves out the scratch's encryption, or exchanges its path", Must.DENIED, Stage.BARE
)
async def unencrypted(lab: Lab) -> Observation:
    rig, disk = await lab.bare()
    first = await denied(
        "no encryption", rig.mount_scratch(disk, encrypted=False), "scratch.unencrypted"
    )
    container = rig.new_id()
    seen = [first]
    for path in (scratch_path(POD, container), f"{pod_directory(POD)}/elsewhere/{container}"):
        call = rig.mount_overlay(container, [rig.new_target()], scratch_path=path)
        seen.append(await stopped(f"a root on {path}, where no scratch is", call))
    await rig.require_stance(v1.Stance(v1.Stance.POLICY))
    return all_of(*seen)


@attack("K7", "supplies a LUKS2 header with a null cipher", Must.NO_EFFECT)
async def null_cipher(lab: Lab) -> Observation:
    group = await lab.group()
    assert group.rig.scratch is not None
    planted = lab.folder / "planted.img"
    make_scratch_file(planted)
    if not planted.read_bytes()[:6] == LUKS_MAGIC:
        raise AttackError("the header was not planted")
    start = next(content for _, content in used_blocks(group.rig.scratch))
    if start[:6] == LUKS_MAGIC or not start.startswith(b"integrt\0"):
        raise AttackError(f"the scratch begins with {start[:8]!r}")
    return Observation(
        "the header is overwritten unread: the scratch has a fresh dm-integrity superblock",
        ("fresh",),
    )


@attack("F7b", "reads the scratch disk", Must.NO_EFFECT)
async def read_scratch(lab: Lab) -> Observation:
    group = await lab.group()
    assert group.rig.scratch is not None
    await _write(group.rig, group.app)
    needle = CANARY_TEXT[:16]
    number = 0
    for at, block in used_blocks(group.rig.scratch):
        number += 1
        if needle in block:
            raise AttackError(f"the container's text lies on the disk at {at}")
    if number * BLOCK < len(CANARY_TEXT):
        raise AttackError("nothing was written to the disk at all")
    return Observation(
        f"64 KiB written and synced by a container; none of it in {number} blocks", ("ciphertext",)
    )


Blocks: TypeAlias = dict[int, bytes]


async def _tampered(lab: Lab, tampers: Mapping[str, Callable[[Blocks], Blocks]]) -> Observation:
    """Blocks that a write of the container's changed are tampered with, read by it, and put back."""
    group = await lab.group()
    rig = group.rig
    disk = rig.scratch
    assert disk is not None
    container, changed = await _victim(group)
    seen = []
    for what, tamper in tampers.items():
        write_blocks(disk, tamper(changed))
        during = await rig.execute_and_wait(container, READ_BACK)
        write_blocks(disk, changed)
        after = await rig.execute_and_wait(container, READ_BACK)
        text = f"{what} ({len(changed)} blocks): reading ends with error {during}, put back with {after}"
        if during not in (EIO, EILSEQ) or after:
            raise AttackError(text)
        seen.append(Observation(text, ("eio",)))
    return all_of(*seen)


async def _victim(group: Group) -> tuple[str, Blocks]:
    """A container that has written a file, and the blocks of the disk that changed with it.

    Made once: a block that holds the same text again is the same ciphertext, and would not be found by comparing.
    """
    if group.victim is None:
        disk = group.rig.scratch
        assert disk is not None
        container = await group.assemble()
        await group.rig.create(container)
        await group.rig.start(container)
        before = snapshot(disk)
        await _write(group.rig, container)
        changed = {at: block for at, block in snapshot(disk).items() if before.get(at) != block}
        group.victim = container, changed
    return group.victim


async def _write(rig: Rig, container: str) -> None:
    if status := await rig.execute_and_wait(container, WRITE):
        raise AttackError(f"the container could not write: {status}")


def _flipped(blocks: Blocks) -> Blocks:
    return {at: bytes([block[0] ^ 1]) + block[1:] for at, block in blocks.items()}


def _emptied(blocks: Blocks) -> Blocks:
    return {at: bytes(len(block)) for at, block in blocks.items()}


def _moved(blocks: Blocks) -> Blocks:
    """Each block's content where the next one's was."""
    contents = list(blocks.values())
    return dict(zip(blocks, contents[1:] + contents[:1], strict=True))


@attack("F7c", "writes to the scratch disk", Must.DETECTED, Stage.LAST)
async def written_scratch(lab: Lab) -> Observation:
    return await _tampered(lab, {"one bit of each block": _flipped})


@attack("M2b", "empties the scratch disk, or moves its blocks about", Must.DETECTED, Stage.LAST)
async def moved_scratch(lab: Lab) -> Observation:
    return await _tampered(lab, {"zeros": _emptied, "blocks moved": _moved})
