"""Collaborators of a pod without VM, network or images: for tests and for the launcher script beside."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from parma_api.ids import RootHash
from parma_api.launch import VmSize
from parma_shim.config import HostPaths
from parma_shim.podconfig import PodConfig, PolicyText, RuntimeOptions
from parma_shim.sandbox.ports import Layer, Network, Ports
from parma_shim.sandbox.turns import at_once
from tests.fakes.guest import Behaviour, launcher


class FakeLayer:
    """A file whose content is its root hash."""

    def __init__(self, name: str) -> None:
        self.root_hash = RootHash(hashlib.sha256(name.encode()).hexdigest())
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `close`
        self._file.write(self.root_hash.encode())
        self._file.flush()
        self.closed = False

    @property
    def fd(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        self._file.close()


class FakeImages:
    """Layers by container; two for whom nothing else is said. Remembers all that it gave."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.given: list[FakeLayer] = []
        self.error: Exception | None = None

    async def __call__(self, container_id: str) -> Sequence[Layer]:
        if self.error is not None:
            raise self.error
        layers = [FakeLayer(name) for name in self.names.get(container_id, ["base", "top"])]
        self.given += layers
        return layers


async def no_network(netns: Path) -> Network:
    raise AssertionError(f"no test has a network namespace: {netns}")


def fake_ports(
    run_dir: Path,
    behaviour: Behaviour,
    images: FakeImages,
    plug: Callable[[Path], object] = no_network,
) -> Ports:
    """All fakes."""

    def pod_config(annotations: dict[str, str], options: RuntimeOptions) -> PodConfig:
        return PodConfig(PolicyText(b"package policy", "test"), (), VmSize.SMALL, 256)

    def scratch() -> int:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())

    return Ports(
        pod_config=pod_config,
        plug=plug,  # type: ignore[arg-type]
        launch=launcher(behaviour),
        layers=images,
        scratch=scratch,
        certificates=lambda: b"",
        turn=at_once,
        boot_deadline=10,
        host_paths=HostPaths.REFUSE,
        run_dir=run_dir,
    )
