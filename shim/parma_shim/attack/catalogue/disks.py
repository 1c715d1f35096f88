"""Layer disks: fabricated, altered, shortened, exchanged, mounted where they must not be, and taken away."""

from __future__ import annotations

from parma_api.gen.parma.agent import v1
from parma_api.status import ApiError, Code
from parma_api.volumes import pod_directory, root_path
from parma_shim.attack.lab import Group, Lab
from parma_shim.attack.layers import BLOCK, LayerFile
from parma_shim.attack.outcome import AttackError, Observation, all_of, denied, refused, stopped
from parma_shim.attack.policy import READ
from parma_shim.attack.program import CANARY_TEXT, EIO, program
from parma_shim.attack.registry import Must, Stage, attack
from parma_shim.attack.rig import POD
from parma_shim.attack.scratch_file import make_scratch_file
from parma_shim.vmm.disks import ScsiAddress

_EXT4_SUPERBLOCK = 1024
_BLOCKS_COUNT = _EXT4_SUPERBLOCK + 4


@attack("F3a", "fabricates a layer with a root hash of its own", Must.DENIED)
async def fabricated(lab: Lab) -> Observation:
    group = await lab.group()
    evil = lab.layer("evil", {"tool": program() + b"evil"})
    seen = await denied(
        "a layer that no policy lists",
        group.rig.mount_layer(evil, group.rig.new_target()),
        "device.hash_unknown",
    )
    await group.require_untouched()
    return seen


@attack("F3b", "alters a layer but keeps the allowed root hash", Must.DETECTED)
async def altered(lab: Lab) -> Observation:
    group = await lab.group()
    rig = group.rig
    first = lab.layers()["top"].copy("altered-superblock.img")
    first.flip(_EXT4_SUPERBLOCK + 0x78)
    at_once = await refused(
        "the superblock changed", rig.mount_layer(first, rig.new_target()), Code.DATA_LOSS
    )
    later = lab.layers()["top"].copy("altered-file.img")
    later.flip(later.find(CANARY_TEXT[:64]))
    target = rig.new_target()
    await rig.mount_layer(later, target)
    container = rig.new_id()
    await rig.mount_overlay(container, [target, group.targets["base"]])
    status = await _run_reader(group, container)
    await rig.remove(container)
    await rig.unmount_layer(target)
    if status != EIO:
        raise AttackError(f"one bit of a file changed: reading it ends with {status}, not EIO")
    found = Observation(f"one bit of a file changed: reading it ends with EIO ({EIO})", ("eio",))
    return all_of(found, at_once)


async def _run_reader(group: Group, container: str) -> int:
    """Runs `reader` on an assembled root; its exit status."""
    await group.rig.create(container, READ)
    await group.rig.start(container)
    return await group.rig.wait(container)


@attack("F3c", "writes verity metadata of its own", Must.NO_EFFECT)
async def own_metadata(lab: Lab) -> Observation:
    group = await lab.group()
    top = lab.layers()["top"]
    seen = []
    for what, at, data in (
        ("another algorithm", 32, b"sha512".ljust(32, b"\0")),
        ("another salt", 88, b"salt"),
        ("another number of blocks", 72, (1).to_bytes(8, "little")),
        ("another block size", 64, (512).to_bytes(4, "little")),
    ):
        changed = top.copy(f"metadata-{at}.img")
        changed.write(top.image_size + at, data)
        call = group.rig.mount_layer(changed, group.rig.new_target())
        seen.append(await refused(what, call, Code.INVALID_ARGUMENT))
    seen.append(await _own_tree(group, top))
    seen.append(await _other_size(group, top))
    await group.require_untouched()
    return all_of(*seen)


async def _own_tree(group: Group, top: LayerFile) -> Observation:
    """Another top hash block is another root, whatever lies below."""
    changed = top.copy("metadata-tree.img")
    changed.flip(top.image_size + BLOCK)
    call = group.rig.mount_layer(changed, group.rig.new_target())
    return await denied("a hash tree of its own", call, "device.hash_unknown")


async def _other_size(group: Group, top: LayerFile) -> Observation:
    """The file system claims one block less; then the verity superblock is not where the claim says."""
    changed = top.copy("metadata-size.img")
    blocks = top.image_size // BLOCK - 1
    changed.write(_BLOCKS_COUNT, blocks.to_bytes(4, "little"))
    call = group.rig.mount_layer(changed, group.rig.new_target())
    return await stopped("another size of the file system", call)


@attack("F4a", "mounts layers that are listed nowhere, in any combination", Must.DENIED)
async def unlisted(lab: Lab) -> Observation:
    group = await lab.group()
    seen = []
    for number in range(3):
        foreign = lab.layer(f"foreign-{number}", {f"file-{number}": b"x" * (number + 1)})
        call = group.rig.mount_layer(foreign, group.rig.new_target())
        seen.append(await denied(f"foreign layer {number + 1}", call, "device.hash_unknown"))
    await group.require_untouched()
    return all_of(*seen)


@attack("F4b", "mounts a second device over a target in use", Must.DENIED)
async def over_a_target(lab: Lab) -> Observation:
    group = await lab.group()
    rig, base = group.rig, group.targets["base"]
    second = lab.layers()["top"].copy("second.img")
    over = await stopped("an allowed layer over another", rig.mount_layer(second, base))
    again = await stopped("a disk in use", rig.mount_layer(lab.layers()["top"], rig.new_target()))
    status = await rig.execute_and_wait(group.app, READ)
    if status:
        raise AttackError(f"the container's own layers are no longer what they were: {status}")
    await group.require_untouched()
    return all_of(over, again)


@attack("F7a", "tampers with the disk under a mounted layer", Must.DETECTED)
async def under_a_mounted_layer(lab: Lab) -> Observation:
    group = await lab.group()
    top = lab.layers()["top"]
    before = await group.rig.execute_and_wait(group.app, READ)
    at = top.find(CANARY_TEXT[:64]) + 4 * BLOCK
    top.flip(at)
    try:
        during = await group.rig.execute_and_wait(group.app, READ)
    finally:
        top.flip(at)
    after = await group.rig.execute_and_wait(group.app, READ)
    if (before, during, after) != (0, EIO, 0):
        raise AttackError(f"reads end with {before}, {during}, {after}; wanted 0, EIO, 0")
    return Observation(
        f"the container's read ends with EIO ({EIO}), with the bit put back 0", ("eio",)
    )


@attack("M2a", "shortens a layer's disk, or exchanges it while it is in use", Must.DETECTED)
async def shortened_or_exchanged(lab: Lab) -> Observation:
    group = await lab.group()
    rig, top = group.rig, lab.layers()["top"]
    short = top.copy("short.img")
    with short.path.open("r+b") as file:
        file.truncate(top.image_size + BLOCK)
    cut = await refused(
        "the tree cut off", rig.mount_layer(short, rig.new_target()), Code.INVALID_ARGUMENT
    )
    exchanged = top.copy("exchanged.img")
    target, container = rig.new_target(), rig.new_id()
    await rig.mount_layer(exchanged, target)
    await rig.mount_overlay(container, [target, group.targets["base"]])
    exchanged.write(0, lab.layers()["extra"].path.read_bytes())
    outcome = await _reader_fails(group, container)
    await rig.unmount_layer(target)
    await group.require_untouched()
    return all_of(outcome, cut)


async def _reader_fails(group: Group, container: str) -> Observation:
    """Whatever fails first, creating the container or its reading: it is an I/O error, and no byte is given out."""
    try:
        status = await _run_reader(group, container)
    except ApiError as error:
        await group.rig.unmount_overlay(container)
        if "nput/output error" not in error.message:
            raise
        return Observation("another disk in its place: the container cannot be made, EIO", ("eio",))
    await group.rig.remove(container)
    if status != EIO:
        raise AttackError(f"another disk in its place: reading ends with {status}, not EIO")
    return Observation(f"another disk in its place: reading ends with EIO ({EIO})", ("eio",))


@attack("M5c", "behaves until it has served, then loads something further", Must.DENIED)
async def later(lab: Lab) -> Observation:
    group = await lab.group()
    if await group.rig.execute_and_wait(group.app, READ):
        raise AttackError("the group does not work")
    late = lab.layer("late", {"tool": program() + b"late"})
    call = group.rig.mount_layer(late, group.rig.new_target())
    seen = await denied("a further layer, after the group has worked", call, "device.hash_unknown")
    request = v1.SetPolicyRequest(policy=group.rig.policy)
    second = await refused(
        "a second policy", group.rig.agent.set_policy(request), Code.INVALID_ARGUMENT
    )
    if second.reason_codes != ("policy.already_set",):
        raise AttackError(f"a second policy: {second.observed}")
    await group.require_untouched()
    return all_of(seen, second)


@attack("K5", "plugs in a disk that is no layer, or runs an image without layers", Must.DENIED)
async def no_layer(lab: Lab) -> Observation:
    group = await lab.group()
    rig = group.rig
    host_disk = lab.folder / "host-disk.img"
    make_scratch_file(host_disk)
    address = await rig.attach(host_disk)
    call = rig.mount_at(address, rig.new_target())
    disk = await refused("a disk of the host's", call, Code.INVALID_ARGUMENT)
    none = await stopped("an image without layers", rig.mount_overlay(rig.new_id(), []))
    await group.require_untouched()
    return all_of(disk, none)


@attack("K10", "mounts storage of another kind, and at other places", Must.DENIED, Stage.BARE)
async def other_storage(lab: Lab) -> Observation:
    rig, scratch = await lab.bare()
    seen = [
        await denied(
            f"scratch with file system {kind!r}",
            rig.mount_scratch(scratch, filesystem=kind),
            "device.filesystem_not_allowed",
        )
        for kind in ("btrfs", "virtiofs", "")
    ]
    for place in ("/run/secrets", "/etc", f"{pod_directory(POD)}/sandboxMounts", root_path(POD)):
        seen.append(await stopped(f"scratch at {place}", rig.mount_scratch(scratch, target=place)))
    address = await rig.attach(lab.layers()["base"].path)
    for place in ("/run/mounts/scsi/m1/../../../../etc", "/run/secrets", "/run/mounts/scsi/x"):
        seen.append(await stopped(f"a layer at {place}", rig.mount_at(address, place)))
    await rig.running.machine.detach_disk(address)
    await rig.require_stance(v1.Stance(v1.Stance.POLICY))
    return all_of(*seen)


@attack("K13", "unmounts what is in use, and what is not there", Must.DENIED)
async def unmounts(lab: Lab) -> Observation:
    group = await lab.group()
    rig = group.rig
    scratch = v1.UnmountScratchRequest(target=pod_directory(POD))
    foreign = v1.UnmountOverlayRequest(container_id=group.probe, target=root_path(group.app))
    in_use = Code.FAILED_PRECONDITION
    base = group.targets["base"]
    seen = [
        await refused("a layer in use", rig.unmount_layer(base), in_use),
        await refused("a root in use", rig.unmount_overlay(group.app), in_use),
        await refused("the scratch in use", rig.agent.unmount_scratch(scratch), in_use),
        await stopped("another container's root", rig.agent.unmount_overlay(foreign)),
    ]
    seen.append(await stopped("a layer that is not there", rig.unmount_layer(rig.new_target())))
    seen.append(await stopped("a root that is not there", rig.unmount_overlay(rig.new_id())))
    if await rig.execute_and_wait(group.app, READ):
        raise AttackError("the container no longer reads its layers")
    await group.require_untouched()
    return all_of(*seen)


@attack("K24", "lets an action hang while a container is killed", Must.NO_EFFECT)
async def hanging_action(lab: Lab) -> Observation:
    import asyncio

    group = await lab.group()
    rig = group.rig
    container = await group.assemble()
    await rig.create(container)
    await rig.start(container)
    device = v1.ScsiAddress(controller=0, lun=ScsiAddress(0, 250).lun)
    request = v1.MountLayerRequest(device=device, target=rig.new_target())
    hanging = asyncio.ensure_future(rig.agent.mount_layer(request, timeout=18))
    try:
        await rig.agent.signal_process(v1.SignalProcessRequest(container_id=container, signal=9))
        status = await rig.wait(container)
        if hanging.done() or status != 128 + 9:
            raise AttackError(f"killed with status {status}; the mount was over: {hanging.done()}")
    finally:
        hanging.cancel()
        await asyncio.wait((hanging,))
    await rig.remove(container)
    await group.require_untouched()
    return Observation("killed while a disk that never comes is waited for", ("killed",))
