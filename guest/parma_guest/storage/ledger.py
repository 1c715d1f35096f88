"""What is mounted where, from which root hash, and what uses it. Pure bookkeeping.

The ledger is changed before an action and changed back if the action fails; it refuses what would take something away
that is in use. It answers for the guest; the policy's metadata answers for the policy, and `Snapshot` has its form.
"""

from __future__ import annotations

from dataclasses import dataclass

from parma_api.ids import ContainerId, RootHash
from parma_api.status import AlreadyExistsError, FailedPreconditionError, NotFoundError
from parma_guest.linux.blockdev import ScsiAddress

MAX_LAYERS = 127
"""Of one image (the overlay of more is refused before the policy is asked)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A verified read-only layer."""

    target: str
    root_hash: RootHash
    address: ScsiAddress
    device: str


@dataclass(frozen=True, slots=True)
class Scratch:
    """The pod's writable disk. Always encrypted and authenticated; there is no other way to make one."""

    target: str
    address: ScsiAddress
    integrity: str
    crypt: str
    encrypted: bool = True


@dataclass(frozen=True, slots=True)
class Overlay:
    """A container's root. `layers`: targets, top first, as judged; `scratch_path` None: read-only."""

    target: str
    container: ContainerId
    layers: tuple[str, ...]
    scratch_path: str | None
    scratch: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ledger in the form of the policy's collections (policy.md 4)."""

    devices: dict[str, str]
    rw_devices: dict[str, bool]
    overlay_targets: dict[str, bool]
    scratch_mounts: dict[str, dict[str, bool]]


class Ledger:
    """Every `require_*` and `add_*` raises AlreadyExistsError, NotFoundError or FailedPreconditionError."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}
        self._scratch: dict[str, Scratch] = {}
        self._overlays: dict[str, Overlay] = {}
        self._running: dict[str, set[ContainerId]] = {}

    def snapshot(self) -> Snapshot:
        """A copy, comparable with the policy's metadata."""
        return Snapshot(
            {target: str(layer.root_hash) for target, layer in self._layers.items()},
            dict.fromkeys(self._scratch, True),
            dict.fromkeys(self._overlays, True),
            {
                overlay.scratch_path: {"encrypted": self._scratch[overlay.scratch].encrypted}
                for overlay in self._overlays.values()
                if overlay.scratch_path is not None and overlay.scratch is not None
            },
        )

    def require_free(self, target: str, address: ScsiAddress | None = None) -> None:
        """Nothing is mounted at the target, and nothing uses the address."""
        if target in self._layers or target in self._scratch or target in self._overlays:
            raise AlreadyExistsError(f"{target} is in use")
        if address is None:
            return
        users: list[Layer | Scratch] = [*self._layers.values(), *self._scratch.values()]
        for user in users:
            if user.address == address:
                raise AlreadyExistsError(f"the disk at {address} is in use at {user.target}")

    def add_layer(self, layer: Layer) -> None:
        """Book a layer."""
        self.require_free(layer.target, layer.address)
        self._layers[layer.target] = layer

    def layer(self, target: str) -> Layer:
        """The layer at `target`."""
        if target not in self._layers:
            raise NotFoundError(f"no layer is mounted at {target}")
        return self._layers[target]

    def require_layer_unused(self, target: str) -> Layer:
        """The layer at `target`, which no overlay uses."""
        layer = self.layer(target)
        for overlay in self._overlays.values():
            if target in overlay.layers:
                raise FailedPreconditionError(
                    f"the layer at {target} is in use by the overlay at {overlay.target}"
                )
        return layer

    def remove_layer(self, target: str) -> Layer:
        """Forget a layer that nothing uses."""
        layer = self.require_layer_unused(target)
        del self._layers[target]
        return layer

    def add_scratch(self, scratch: Scratch) -> None:
        """Book the pod's scratch; there is one."""
        self.require_scratch_free(scratch.target, scratch.address)
        self._scratch[scratch.target] = scratch

    def require_scratch_free(self, target: str, address: ScsiAddress) -> None:
        """No scratch is mounted yet, and nothing is in the way."""
        self.require_free(target, address)
        for other in self._scratch:
            raise AlreadyExistsError(f"the pod's scratch is mounted already, at {other}")

    def scratch(self, target: str) -> Scratch:
        """The scratch at `target`."""
        if target not in self._scratch:
            raise NotFoundError(f"no scratch is mounted at {target}")
        return self._scratch[target]

    def require_scratch_unused(self, target: str) -> Scratch:
        """The scratch at `target`, which no overlay uses."""
        scratch = self.scratch(target)
        for overlay in self._overlays.values():
            if overlay.scratch == target:
                raise FailedPreconditionError(
                    f"the scratch at {target} is in use by the overlay at {overlay.target}"
                )
        return scratch

    def remove_scratch(self, target: str) -> Scratch:
        """Forget a scratch that nothing uses."""
        scratch = self.require_scratch_unused(target)
        del self._scratch[target]
        return scratch

    def require_overlay(self, overlay: Overlay) -> tuple[Layer, ...]:
        """The layers of an overlay that could be made now, top first."""
        self.require_free(overlay.target)
        if not 1 <= len(overlay.layers) <= MAX_LAYERS:
            raise FailedPreconditionError(
                f"an overlay has 1 to {MAX_LAYERS} layers, not {len(overlay.layers)}"
            )
        if overlay.scratch is not None:
            self.scratch(overlay.scratch)
        for other in self._overlays.values():
            if other.scratch_path is not None and other.scratch_path == overlay.scratch_path:
                raise AlreadyExistsError(f"{overlay.scratch_path} is in use at {other.target}")
        return tuple(self.layer(target) for target in overlay.layers)

    def add_overlay(self, overlay: Overlay) -> tuple[Layer, ...]:
        """Book an overlay; its layers, top first."""
        layers = self.require_overlay(overlay)
        self._overlays[overlay.target] = overlay
        return layers

    def overlay(self, target: str) -> Overlay:
        """The overlay at `target`."""
        if target not in self._overlays:
            raise NotFoundError(f"no overlay is mounted at {target}")
        return self._overlays[target]

    def require_overlay_unused(self, target: str) -> Overlay:
        """The overlay at `target`, which no container runs on."""
        overlay = self.overlay(target)
        if self._running.get(target):
            raise FailedPreconditionError(
                f"the overlay at {target} is in use by a container: shut it down first"
            )
        return overlay

    def remove_overlay(self, target: str) -> Overlay:
        """Forget an overlay that nothing uses."""
        overlay = self.require_overlay_unused(target)
        del self._overlays[target]
        return overlay

    def hold(self, target: str, container: ContainerId) -> None:
        """A container runs on the overlay at `target`."""
        self.overlay(target)
        self._running.setdefault(target, set()).add(container)

    def release(self, target: str, container: ContainerId) -> None:
        """It no longer does."""
        self._running.get(target, set()).discard(container)
