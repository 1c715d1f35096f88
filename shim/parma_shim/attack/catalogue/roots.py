"""Container roots: layers in another order, missing, doubled, mixed, and directories that are no layers."""

from __future__ import annotations

from parma_api.volumes import pod_directory, root_path, scratch_path
from parma_shim.attack.lab import Lab
from parma_shim.attack.outcome import Observation, all_of, denied, stopped
from parma_shim.attack.registry import Must, attack
from parma_shim.attack.rig import POD

NO_MATCH = "overlay.no_match"


@attack("F5a", "builds a root from any set of layers", Must.DENIED)
async def any_set(lab: Lab) -> Observation:
    group = await lab.group()
    base, top, extra = (group.targets[name] for name in ("base", "top", "extra"))
    seen = []
    for what, layers in {
        "wrong order": [base, top],
        "one missing": [base],
        "the other missing": [top],
        "one twice": [top, top, base],
        "one too many": [extra, top, base],
        "layers of two containers": [extra, base],
    }.items():
        call = group.rig.mount_overlay(group.rig.new_id(), layers)
        seen.append(await denied(what, call, NO_MATCH))
    await group.require_untouched()
    lawful = await group.assemble()
    await group.rig.unmount_overlay(lawful)
    return all_of(*seen)


@attack("M3a", "changes the order of the overlay", Must.DENIED)
async def other_order(lab: Lab) -> Observation:
    group = await lab.group()
    layers = list(reversed(group.app_layers))
    call = group.rig.mount_overlay(group.rig.new_id(), layers)
    seen = await denied("the layers upside down", call, NO_MATCH)
    await group.require_untouched()
    return seen


@attack("M3b", "injects a rogue layer into the overlay", Must.DENIED)
async def rogue_layer(lab: Lab) -> Observation:
    group = await lab.group()
    rogue = group.rig.new_target()
    top, base = group.app_layers
    extra = group.targets["extra"]
    seen = [
        await stopped(
            "a layer that was refused",
            group.rig.mount_overlay(group.rig.new_id(), [rogue, top, base]),
        )
    ]
    for place in ([extra, top, base], [top, extra, base], [top, base, extra]):
        call = group.rig.mount_overlay(group.rig.new_id(), place)
        seen.append(await denied(f"another layer at {place.index(extra)}", call, NO_MATCH))
    await group.require_untouched()
    return all_of(*seen)


@attack("F5b", "names directories that are no mounted layers", Must.DENIED)
async def other_directories(lab: Lab) -> Observation:
    group = await lab.group()
    rig = group.rig
    base = group.targets["base"]
    seen = []
    for what in (
        "/",
        "/etc",
        pod_directory(POD),
        root_path(group.app),
        rig.new_target(),
        f"{base}/proc",
    ):
        call = rig.mount_overlay(rig.new_id(), [what, base])
        seen.append(await stopped(what, call))
    container = rig.new_id()
    for scratch in ("/etc", scratch_path(POD, group.app), scratch_path("ef" * 32, container)):
        call = rig.mount_overlay(container, group.app_layers, scratch_path=scratch)
        seen.append(await stopped(f"scratch at {scratch}", call))
    for target in ("/run/secrets", root_path(group.app), f"{root_path(container)}/etc"):
        call = rig.mount_overlay(container, group.app_layers, target=target)
        seen.append(await stopped(f"a root at {target}", call))
    await group.require_untouched()
    return all_of(*seen)
