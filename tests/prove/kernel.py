"""A kernel as far as the group needs one: device-mapper devices, mounts, directories of scratch, processes.

The agent's own plans run against it: each operation is exchanged for one with the same name and effect on this model.
It is asked to fail at the n-th operation, or while something is being taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from parma_api.status import FailedPreconditionError
from parma_guest import ops
from parma_guest.linux.blockdev import Disk, ScsiAddress
from parma_guest.storage.scratch import ScratchDisk


class ModelError(AssertionError):
    """The agent asked for what no kernel would do, or what would pull something away: a fault by itself."""


@dataclass(frozen=True, slots=True)
class World:
    """The kernel's state; values are replaced, never changed."""

    devices: dict[str, str] = field(default_factory=dict)
    """Name -> table as text."""
    mounts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Target -> ("device", name), or ("overlay", layers top first ..., scratch)."""
    scratch: frozenset[str] = frozenset()
    processes: frozenset[tuple[str, str, tuple[str, ...]]] = frozenset()
    """(container, exec id, command)."""


class Kernel:
    """Holds a World, and the plan of what is to fail."""

    def __init__(self) -> None:
        self.world = World()
        self.fail_at: int | None = None
        self.undo_fails = False
        self.performed = 0

    def arm(self, fail_at: int | None = None, *, undo_fails: bool = False) -> None:
        """What the next action meets: its `fail_at`-th operation fails."""
        self.fail_at, self.undo_fails, self.performed = fail_at, undo_fails, 0

    def step(self, what: str) -> None:
        """Before each operation."""
        number, self.performed = self.performed, self.performed + 1
        if number == self.fail_at:
            raise FailedPreconditionError(f"{what}: told to fail")

    def apply(self, steps: Iterable[ops.Operation], finish: ops.Undo | None = None) -> None:
        """In the place of `ops.apply`."""
        ops.apply([_Modelled(self, step) for step in steps], finish=finish)

    def scratch_disk(self, address: ScsiAddress, _deadline: float) -> ScratchDisk:
        """In the place of the look at a real disk."""
        return ScratchDisk(address, Disk("/dev/sdz", "8:240"), 1 << 16)

    def start(self, container: str, exec_id: str, command: tuple[str, ...]) -> None:
        """A process."""
        self.step("create")
        self.world = replace(
            self.world, processes=self.world.processes | {(container, exec_id, command)}
        )

    def end(self, container: str) -> None:
        """All processes of a container."""
        left = frozenset(row for row in self.world.processes if row[0] != container)
        self.world = replace(self.world, processes=left)


@dataclass(frozen=True, slots=True)
class _Modelled:
    """One operation of a plan, on the model."""

    kernel: Kernel
    real: Any

    def describe(self) -> str:
        return str(self.real.describe())

    def apply(self) -> ops.Undo | None:
        self.kernel.step(self.describe())
        effect = _EFFECTS.get(type(self.real).__name__)
        if effect is None:
            raise ModelError(f"no model of {type(self.real).__name__}")
        before = self.kernel.world
        self.kernel.world = effect(before, self.real)
        if type(self.real).__name__ == "RemoveDevice":
            return ops.irreversible(self.describe())
        return lambda: self._undo(before)

    def _undo(self, before: World) -> None:
        if self.kernel.undo_fails:
            raise FailedPreconditionError("an undo was told to fail")
        self.kernel.world = before


def _create_device(world: World, op: Any) -> World:
    if op.name in world.devices:
        raise ModelError(f"{op.name} exists")
    return replace(world, devices={**world.devices, op.name: ""})


def _load_table(world: World, op: Any) -> World:
    return replace(world, devices={**world.devices, op.name: op.table.describe()})


def _open_crypt(world: World, op: Any) -> World:
    return replace(world, devices={**world.devices, op.name: f"crypt over {op.below}"})


def _remove_device(world: World, op: Any) -> World:
    if ("device", op.name) in world.mounts.values():
        raise ModelError(f"{op.name} is mounted")
    return replace(world, devices={n: t for n, t in world.devices.items() if n != op.name})


def _mount_device(world: World, op: Any) -> World:
    if op.target in world.mounts or op.device not in world.devices:
        raise ModelError(f"{op.device} cannot be mounted on {op.target}")
    return replace(world, mounts={**world.mounts, op.target: ("device", op.device)})


def _mount_overlay(world: World, op: Any) -> World:
    missing = [layer for layer in op.lowers if layer not in world.mounts]
    if op.target in world.mounts or missing:
        raise ModelError(f"no overlay on {op.target}: {missing}")
    value = ("overlay", *op.lowers, op.scratch_path or "")
    return replace(world, mounts={**world.mounts, op.target: value})


def _unmount(world: World, op: Any) -> World:
    if op.target not in world.mounts:
        raise ModelError(f"nothing is mounted on {op.target}")
    for target, value in world.mounts.items():
        below = op.target in value or (value[-1] and value[-1].startswith(op.target + "/"))
        if value[0] == "overlay" and below and target != op.target:
            raise ModelError(f"{op.target} is pulled away from under {target}")
    if any(op.target.split("/")[-2] == row[0] for row in world.processes):
        raise ModelError(f"{op.target} is pulled away from under a process")
    return replace(world, mounts={t: v for t, v in world.mounts.items() if t != op.target})


def _make_scratch(world: World, op: Any) -> World:
    return replace(world, scratch=world.scratch | {op.path})


def _discard_scratch(world: World, op: Any) -> World:
    return replace(world, scratch=world.scratch - {op.path})


def _nothing(world: World, _op: Any) -> World:
    return world


_EFFECTS: dict[str, Callable[[World, Any], World]] = {
    "CreateDevice": _create_device,
    "LoadTable": _load_table,
    "OpenCrypt": _open_crypt,
    "RemoveDevice": _remove_device,
    "MountDevice": _mount_device,
    "MountOverlay": _mount_overlay,
    "Unmount": _unmount,
    "MakeContainerScratch": _make_scratch,
    "DiscardContainerScratch": _discard_scratch,
    "CheckMapping": _nothing,
    "FormatIntegrity": _nothing,
    "MakeFilesystem": _nothing,
    "MakeDirectory": _nothing,
    "RemoveDirectory": _nothing,
}
