"""The pod's storage as the agent's calls see it: check, ask the gate, then act.

`check_*` are the conditions that no policy can lift (policy.md 16): called before the gate, they change nothing. The
other methods are called inside the gate's transaction, one at a time; they book, act, and unbook if the action fails.
An UndoFailedError from any of them means that the group must be marked inconsistent.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence

from parma_api.ids import ContainerId, SandboxId
from parma_api.status import InvalidArgumentError
from parma_guest import ops
from parma_guest.linux.blockdev import ScsiAddress
from parma_guest.linux.devmapper import DeviceMapper
from parma_guest.storage import layers, paths, plan
from parma_guest.storage.layers import LayerClaim
from parma_guest.storage.ledger import MAX_LAYERS, Layer, Ledger, Overlay, Scratch, Snapshot
from parma_guest.storage.scratch import scratch_disk
from parma_guest.storage.worker import run_blocking

_LOG = logging.getLogger(__name__)

DISK_WAIT = 20.0
"""Seconds for a disk to appear after the host says that it plugged it in."""
MOUNT_TIME = 30.0
MKFS_TIME = 120.0


class Storage:
    """Layers, scratch and overlays of one pod."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._numbers = itertools.count(1)
        self._removals: list[threading.Thread] = []

    # What is known

    def snapshot(self) -> Snapshot:
        """The ledger, in the form of the policy's metadata."""
        return self._ledger.snapshot()

    def is_encrypted(self, scratch_path: str) -> bool:
        """Whether a container's scratch path lies on encrypted scratch, by the ledger: the request has no say.

        Raises InvalidArgumentError, NotFoundError.
        """
        target, _ = paths.parse_container_scratch(scratch_path)
        return self._ledger.scratch(target).encrypted

    def corrupt_layers(self) -> tuple[str, ...]:
        """Targets of layers whose verity has met a corrupt block; it never becomes whole again."""
        mapper = DeviceMapper()
        return tuple(
            target
            for target in self._ledger.snapshot().devices
            if mapper.status(self._ledger.layer(target).device).startswith("C")
        )

    # Layers

    def check_mount_layer(self, address: ScsiAddress, target: str) -> None:
        """Raises InvalidArgumentError, AlreadyExistsError."""
        paths.check_layer_target(target)
        self._ledger.require_free(target, address)

    async def read_claim(self, address: ScsiAddress) -> LayerClaim:
        """What the disk claims to be; changes nothing. Raises DeadlineExceededError, InvalidArgumentError."""
        deadline = time.monotonic() + DISK_WAIT
        return await run_blocking(lambda _: layers.claim_of(address, deadline), DISK_WAIT)

    async def mount_layer(self, found: LayerClaim, target: str) -> None:
        """Mount what the policy allowed. Raises DataLossError if the disk is not what it claimed."""
        self.check_mount_layer(found.address, target)
        layer = Layer(target, found.claim.root_hash, found.address, f"layer-{next(self._numbers)}")
        self._ledger.add_layer(layer)
        await self._act(
            plan.mount_layer(layer, found), lambda: self._ledger.remove_layer(target), MOUNT_TIME
        )

    def check_unmount_layer(self, target: str) -> None:
        """Raises NotFoundError, FailedPreconditionError (an overlay uses it)."""
        self._ledger.require_layer_unused(target)

    async def unmount_layer(self, target: str) -> None:
        """Unmount and remove the mapping."""
        layer = self._ledger.remove_layer(target)
        await self._take_down(plan.unmount_layer(layer), lambda: self._ledger.add_layer(layer))

    # Scratch

    def check_mount_scratch(
        self, address: ScsiAddress, target: str, sandbox: SandboxId, filesystem: str = "ext4"
    ) -> None:
        """Raises InvalidArgumentError, AlreadyExistsError."""
        if paths.sandbox_of_scratch(target) != sandbox:
            raise InvalidArgumentError(f"{target} is not this pod's directory")
        if filesystem != "ext4":
            raise InvalidArgumentError(f"scratch is ext4, not {filesystem!r}")
        self._ledger.require_scratch_free(target, address)

    async def mount_scratch(self, address: ScsiAddress, target: str, sandbox: SandboxId) -> None:
        """Encrypt, authenticate, format, mount. The key never leaves the VM's memory."""
        self.check_mount_scratch(address, target, sandbox)
        number = next(self._numbers)
        scratch = Scratch(target, address, f"integrity-{number}", f"scratch-{number}")
        self._ledger.add_scratch(scratch)
        deadline = time.monotonic() + DISK_WAIT

        def work(finish: Callable[[], None]) -> None:
            found = scratch_disk(address, deadline)
            steps = plan.mount_scratch(scratch, found, time.monotonic() + MKFS_TIME)
            ops.apply(steps, finish=finish)

        await self._booked(
            work,
            lambda: self._ledger.remove_scratch(target),
            DISK_WAIT + MKFS_TIME + MOUNT_TIME,
        )

    def check_unmount_scratch(self, target: str) -> None:
        """Raises NotFoundError, FailedPreconditionError (an overlay uses it)."""
        self._ledger.require_scratch_unused(target)

    async def unmount_scratch(self, target: str) -> None:
        """Unmount; the key is gone with the mapping."""
        scratch = self._ledger.remove_scratch(target)

        def work(finish: Callable[[], None]) -> None:
            self._await_removals()
            finish()
            ops.apply(plan.unmount_scratch(scratch))

        await self._booked(work, lambda: self._ledger.add_scratch(scratch), MOUNT_TIME)

    # Overlays

    def check_mount_overlay(
        self,
        container: ContainerId,
        layer_paths: Sequence[str],
        target: str,
        scratch_path: str | None,
    ) -> None:
        """`layer_paths` top first. Raises as the ledger does, and InvalidArgumentError."""
        self._ledger.require_overlay(_overlay(container, layer_paths, target, scratch_path))

    async def mount_overlay(
        self,
        container: ContainerId,
        layer_paths: Sequence[str],
        target: str,
        scratch_path: str | None,
    ) -> None:
        """Assemble a container's root; without scratch it is read-only."""
        overlay = _overlay(container, layer_paths, target, scratch_path)
        below = self._ledger.add_overlay(overlay)
        await self._act(
            plan.mount_overlay(overlay, below),
            lambda: self._ledger.remove_overlay(target),
            MOUNT_TIME,
        )

    def check_unmount_overlay(self, target: str, container: ContainerId | None = None) -> None:
        """Raises NotFoundError, FailedPreconditionError (a container runs on it), InvalidArgumentError."""
        overlay = self._ledger.require_overlay_unused(target)
        if container is not None and overlay.container != container:
            raise InvalidArgumentError(f"the overlay at {target} is another container's")

    async def unmount_overlay(self, target: str) -> None:
        """Unmount; what the container wrote is deleted in the background."""
        overlay = self._ledger.remove_overlay(target)
        trash = f"{overlay.scratch}/scratch/.removed-{next(self._numbers)}"
        await self._take_down(
            plan.unmount_overlay(overlay, trash), lambda: self._ledger.add_overlay(overlay)
        )
        if overlay.scratch_path is not None:
            self._remove_later(trash)

    def hold_overlay(self, target: str, container: ContainerId) -> None:
        """A container runs on the overlay: it is not unmounted until released. Raises NotFoundError."""
        self._ledger.hold(target, container)

    def release_overlay(self, target: str, container: ContainerId) -> None:
        """The container has ended."""
        self._ledger.release(target, container)

    # How

    async def _act(
        self, steps: Sequence[ops.Operation], unbook: Callable[[], object], timeout: float
    ) -> None:
        await self._booked(lambda finish: ops.apply(steps, finish=finish), unbook, timeout)

    async def _take_down(
        self, steps: Sequence[ops.Operation], rebook: Callable[[], object]
    ) -> None:
        """What cannot be taken back is finished once begun, whoever has gone away meanwhile."""

        def work(finish: Callable[[], None]) -> None:
            finish()
            ops.apply(steps)

        await self._booked(work, rebook, MOUNT_TIME)

    async def _booked(
        self,
        work: Callable[[Callable[[], None]], None],
        unbook: Callable[[], object],
        timeout: float,
    ) -> None:
        try:
            await run_blocking(work, timeout)
        except ops.UndoFailedError:
            raise  # nobody knows what is there: the books keep the more careful answer
        except BaseException:
            unbook()
            raise

    def _remove_later(self, path: str) -> None:
        self._removals = [thread for thread in self._removals if thread.is_alive()]
        thread = threading.Thread(target=_remove_tree, args=(path,), name="remove", daemon=True)
        thread.start()
        self._removals.append(thread)

    def _await_removals(self) -> None:
        deadline = time.monotonic() + MOUNT_TIME / 2
        for thread in self._removals:
            thread.join(max(0.0, deadline - time.monotonic()))


def _overlay(
    container: ContainerId, layer_paths: Sequence[str], target: str, scratch_path: str | None
) -> Overlay:
    """The overlay that a request means, if its paths agree with each other."""
    if len(layer_paths) > MAX_LAYERS:
        raise InvalidArgumentError(
            f"an image has at most {MAX_LAYERS} layers, not {len(layer_paths)}"
        )
    if paths.container_of_root(target) != container:
        raise InvalidArgumentError(f"{target} is not the root of container {container}")
    scratch = None
    if scratch_path is not None:
        scratch, owner = paths.parse_container_scratch(scratch_path)
        if owner != container:
            raise InvalidArgumentError(f"{scratch_path} is another container's scratch")
    return Overlay(target, container, tuple(layer_paths), scratch_path, scratch)


def _remove_tree(path: str) -> None:
    import shutil  # with its compression modules too dear for the agent's start

    try:
        shutil.rmtree(path)
    except OSError as error:
        _LOG.warning("cannot remove a container's scratch: %s", error)
