"""The layers that a VM has: each root hash plugged in and mounted once, used by many, and gone with its last user."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from parma_api.gen.parma.agent import v1
from parma_api.ids import RootHash
from parma_api.status import ApiError
from parma_api.volumes import layer_path
from parma_shim.agent.client import AgentClient
from parma_shim.errors import HostileGuestError, RefusedError
from parma_shim.sandbox.ports import Layer, Machine
from parma_shim.vmm.disks import DiskAccess, ScsiAddress

log = logging.getLogger(__name__)

MAX_LAYERS = 127
"""Of one container: more than overlayfs and image builders allow."""


@dataclass(slots=True)
class _Mounted:
    layer: Layer
    target: str
    address: ScsiAddress | None = None
    users: int = 0
    ready: bool = False
    """In the guest; also after its last user, when the guest does not let go of it."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class GuestLayers:
    """A ledger of what is mounted where, for whom. Failures leave the ledger as it was."""

    def __init__(self, machine: Machine, agent: AgentClient) -> None:
        self._machine = machine
        self._agent = agent
        self._mounted: dict[RootHash, _Mounted] = {}
        self._numbers = 0

    def users(self) -> dict[RootHash, int]:
        """How many containers use each."""
        return {root_hash: entry.users for root_hash, entry in self._mounted.items()}

    async def mount(self, layers: Sequence[Layer]) -> tuple[RootHash, ...]:
        """Takes over `layers`, base first; result: what `release` and `paths` want. Raises what agent and VMM raise."""
        left = list(layers)
        taken: list[RootHash] = []
        try:
            _check_number(len(left))
            while left:
                await self._take(left.pop(0))
                taken.append(layers[len(taken)].root_hash)
        except BaseException:
            for layer in left:
                layer.close()
            await self.release(taken)
            raise
        return tuple(taken)

    def paths(self, taken: Sequence[RootHash]) -> list[str]:
        """Where they are in the guest, top layer first; a layer that an image has twice counts once, at its top."""
        unique = dict.fromkeys(reversed(taken))
        return [self._mounted[root_hash].target for root_hash in unique]

    async def release(self, taken: Sequence[RootHash]) -> None:
        """Gives up a container's use. What the guest refuses to let go stays plugged in, with a line in the log."""
        for root_hash in taken:
            entry = self._mounted[root_hash]
            async with entry.lock:
                entry.users -= 1
                if entry.users == 0:
                    await self._unmount(root_hash, entry)

    def close(self) -> None:
        """The VM is gone."""
        mounted, self._mounted = self._mounted, {}
        for entry in mounted.values():
            entry.layer.close()

    async def _take(self, layer: Layer) -> None:
        """One more user of the layer's root hash; `layer` itself is kept by the first one only."""
        while True:
            entry = self._mounted.get(layer.root_hash)
            if entry is None:
                entry = self._mounted[layer.root_hash] = _Mounted(layer, layer_path(self._numbers))
                self._numbers += 1
            async with entry.lock:
                if self._mounted.get(layer.root_hash) is not entry:
                    continue  # its last user left while we waited
                if not entry.ready:
                    await self._mount_first(layer.root_hash, entry)
                entry.users += 1
            if entry.layer is not layer:
                layer.close()
            return

    async def _mount_first(self, root_hash: RootHash, entry: _Mounted) -> None:
        try:
            entry.address = await self._machine.attach_disk(
                entry.layer.fd, access=DiskAccess.READ_ONLY
            )
            told = await self._agent.mount_layer(message(entry.address), entry.target)
            _check_told(told, root_hash)
            entry.ready = True
        except BaseException:
            del self._mounted[root_hash]
            entry.layer.close()
            await self._detach(entry)
            raise

    async def _unmount(self, root_hash: RootHash, entry: _Mounted) -> None:
        try:
            await self._agent.unmount_layer(entry.target)
        except ApiError as error:
            log.warning("layer %s stays mounted in the guest: %s", root_hash[:12], error.message)
            return
        del self._mounted[root_hash]
        await self._detach(entry)
        entry.layer.close()

    async def _detach(self, entry: _Mounted) -> None:
        if entry.address is None:
            return
        try:
            await self._machine.detach_disk(entry.address)
        except ApiError as error:
            log.warning("disk %s stays plugged in: %s", entry.address, error.message)


def _check_number(layers: int) -> None:
    """None at all is CVE-2026-24054: a VM was given a disk of the host's instead (attacks.md, K5)."""
    if not 1 <= layers <= MAX_LAYERS:
        raise RefusedError(f"an image of {layers} layers: a utility VM gets 1 to {MAX_LAYERS}")


def _check_told(told: str, root_hash: RootHash) -> None:
    if told != root_hash:
        raise HostileGuestError(f"the guest mounted {told} where {root_hash} was plugged in")


def message(address: ScsiAddress) -> v1.ScsiAddress:
    """As the agent's protocol has it."""
    return v1.ScsiAddress(controller=address.controller, lun=address.lun)
