"""The real collaborators of a pod, put together from the host's configuration."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from parma_api.layer.errors import LayerDiskFullError
from parma_api.status import ApiError, FailedPreconditionError, InvalidArgumentError
from parma_shim.config import Config, HostPaths, load_config
from parma_shim.layers.cache import LayerCache
from parma_shim.net.pod import plug
from parma_shim.podconfig import PodConfig, RuntimeOptions, pod_config
from parma_shim.sandbox.machines import Launcher
from parma_shim.sandbox.ports import Layer, Network, Ports
from parma_shim.sandbox.turns import BootTurns, at_once
from parma_shim.vmm.accel import choose_accelerator, choose_variant
from parma_shim.vmm.config import Accelerator

if TYPE_CHECKING:
    from parma_shim.image.resolve import LayerRef

MAX_CERTIFICATES = 1 << 20


def assemble(namespace: str, containerd: str, environment: Mapping[str, str]) -> Ports:
    """Raises InvalidArgumentError for a configuration that cannot be read."""
    config = load_config(environment)
    layers = ImageLayers(namespace, Path(containerd), config)

    def read_pod_config(annotations: dict[str, str], options: RuntimeOptions) -> PodConfig:
        return pod_config(config, annotations, options)

    async def plug_in(netns: Path) -> Network:
        return await plug(netns)

    return Ports(
        pod_config=read_pod_config,
        plug=plug_in,
        launch=Launcher(config, environment),
        layers=layers,
        scratch=lambda: make_scratch(config.lib_dir / "scratch", config.scratch_mib),
        certificates=lambda: read_certificates(config.certificates),
        turn=boot_turns(config),
        boot_deadline=config.boot_deadline,
        host_paths=config.host_paths,
        run_dir=config.run_dir,
    )


def refusing(error: ApiError, run_dir: Path) -> Ports:
    """Of a host whose configuration cannot be read: each container is refused with the reason."""

    async def refuse(*_: object) -> NoReturn:
        raise error

    def refuse_now(*_: object) -> NoReturn:
        raise error

    return Ports(
        pod_config=refuse_now,
        plug=refuse,
        launch=refuse,
        layers=refuse,
        scratch=refuse_now,
        certificates=refuse_now,
        turn=refuse_now,
        boot_deadline=1,
        host_paths=HostPaths.REFUSE,
        run_dir=run_dir,
    )


def boot_turns(config: Config) -> Callable[[], AbstractAsyncContextManager[None]]:
    """`boots_at_once` of config.toml. A host that cannot start VMs at all says why later."""
    slots = config.boots_at_once
    if not slots:
        with contextlib.suppress(ApiError):
            choice = choose_accelerator(choose_variant(config.image), config.accelerator)
            if choice.accelerator is Accelerator.TCG:
                slots = len(os.sched_getaffinity(0))
    return BootTurns(config.lib_dir / "turns", slots).turn if slots else at_once


class ImageLayers:
    """A container's image as layer images of the cache."""

    def __init__(self, namespace: str, containerd: Path, config: Config) -> None:
        self._namespace = namespace
        self._containerd = containerd
        self._folder = config.lib_dir / "layers"
        self._cache = LayerCache(self._folder, config.layer_cache_mib << 20)

    async def __call__(self, container_id: str) -> Sequence[Layer]:
        """Base first; converted where the cache has them not. Raises what resolving and converting raise."""
        from parma_shim.image.client import ContainerdClient
        from parma_shim.image.resolve import resolve_layers

        async with ContainerdClient(self._containerd, self._namespace) as client:  # noqa: SIM117
            async with client.leased(f"parma-{container_id}"):
                references = await resolve_layers(client, container_id)

                async def acquire(reference: LayerRef) -> Layer:
                    return await asyncio.to_thread(self._acquire, reference)

                return await gather([acquire(reference) for reference in references])

    def _acquire(self, reference: LayerRef) -> Layer:
        try:
            return self._cache.acquire(reference.diff_id, reference.open_blob)
        except LayerDiskFullError as error:
            raise LayerDiskFullError(
                f"layer {reference.diff_id[:19]}: no room left in {self._folder}: free some, or remove unused layers "
                "with `parma layer prune`"
            ) from error


async def gather(work: Sequence[Awaitable[Layer]]) -> Sequence[Layer]:
    """All results in order; if one fails, or we are cancelled, those of the others are closed as they come."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        if tasks:
            await asyncio.wait(tasks)
        return [task.result() for task in tasks]
    except BaseException:
        for task in tasks:
            task.add_done_callback(_close_result)
        raise


def _close_result(task: asyncio.Future[Layer]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def make_scratch(folder: Path, mebibytes: int) -> int:
    """A sparse file without a name: the kernel frees it with its last descriptor. Raises FailedPreconditionError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = _nameless(folder)
        try:
            os.ftruncate(fd, mebibytes << 20)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise FailedPreconditionError(
            f"scratch cannot be made in {folder}: {error.strerror}"
        ) from error
    return fd


def _nameless(folder: Path) -> int:
    with contextlib.suppress(OSError):  # some file systems (overlay, older NFS) have no O_TMPFILE
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fd, name = tempfile.mkstemp(dir=folder)
    Path(name).unlink()
    return fd


def read_certificates(path: Path | None) -> bytes:
    """`certificates` of config.toml; nothing without. Raises InvalidArgumentError."""
    if path is None:
        return b""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CERTIFICATES + 1)
    except OSError as error:
        raise InvalidArgumentError(f"certificates {path}: {error.strerror}") from error
    if len(data) > MAX_CERTIFICATES:
        raise InvalidArgumentError(f"certificates {path}: more than {MAX_CERTIFICATES} bytes")
    return data
