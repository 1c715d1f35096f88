"""containerd's gRPC on its Unix socket: the calls that lead from a container to its layers.

grpclib is imported by whoever connects: 90 ms that `start` and `delete` do not pay.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpclib
from grpclib.client import Channel
from grpclib.exceptions import StreamTerminatedError

from parma_api.gen.containerd.services.containers.v1 import (
    Container,
    ContainersStub,
    GetContainerRequest,
)
from parma_api.gen.containerd.services.content.v1 import (
    ContentStub,
    ReadContentRequest,
)
from parma_api.gen.containerd.services.images.v1 import GetImageRequest, ImagesStub
from parma_api.gen.containerd.services.leases.v1 import (
    AddResourceRequest,
    CreateRequest,
    DeleteRequest,
    LeasesStub,
    Resource,
)
from parma_api.gen.containerd.services.snapshots.v1 import (
    MountsRequest,
    SnapshotsStub,
    StatSnapshotRequest,
)
from parma_api.status import ApiError, Code, RemoteError, UnavailableError
from parma_shim.image.errors import BlobMissingError, ImageError
from parma_shim.image.manifest import MAX_DOCUMENT, Descriptor, check_digest

DEADLINE = 10.0
STREAM_DEADLINE = 3600.0
LEASE_LIFE = timedelta(hours=1)
"""After this containerd drops the lease of a shim that died."""

T = TypeVar("T")


class ContainerdClient:
    """One namespace of one containerd. Calls raise RemoteError, UnavailableError, and what they say."""

    def __init__(self, socket: Path, namespace: str) -> None:
        self._channel = Channel(path=str(socket))
        self._metadata = {"containerd-namespace": namespace}
        self.lease: str | None = None
        """The lease that keeps content for us at present."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()

    async def container(self, container_id: str) -> Container:
        """The record of a container."""
        stub = ContainersStub(self._channel, timeout=DEADLINE, metadata=self._metadata)
        return (await _call(stub.get(GetContainerRequest(id=container_id)))).container

    async def image(self, name: str) -> Descriptor:
        """What an image's name stands for now."""
        stub = ImagesStub(self._channel, timeout=DEADLINE, metadata=self._metadata)
        target = (await _call(stub.get(GetImageRequest(name=name)))).image.target
        check_digest(target.digest, f"image {name!r}")
        return Descriptor(target.media_type, target.digest, target.size)

    async def snapshot_parent(self, snapshotter: str, key: str) -> str:
        """The chain id of the layers beneath a container's snapshot; empty for none."""
        stub = SnapshotsStub(self._channel, timeout=DEADLINE, metadata=self._metadata)
        return (
            await _call(stub.stat(StatSnapshotRequest(snapshotter=snapshotter, key=key)))
        ).info.parent

    async def snapshot_paths(self, snapshotter: str, key: str) -> tuple[str, ...]:
        """The directories that a snapshot's mounts name."""
        stub = SnapshotsStub(self._channel, timeout=DEADLINE, metadata=self._metadata)
        mounts = (await _call(stub.mounts(MountsRequest(snapshotter=snapshotter, key=key)))).mounts
        options = (option.partition("=")[2] for mount in mounts for option in mount.options)
        sources = (mount.source for mount in mounts)
        return tuple(path for path in (*sources, *options) if path.startswith("/"))

    async def document(self, blob: Descriptor) -> bytes:
        """A small blob, whole, its digest checked. Raises ImageError, BlobMissingError."""
        if blob.size > MAX_DOCUMENT:
            raise ImageError(
                f"{blob.digest} has {blob.size} bytes: too long for a manifest or a config"
            )
        data = bytearray()
        async for chunk in self.chunks(blob):
            data += chunk
            if len(data) > MAX_DOCUMENT:
                raise ImageError(f"{blob.digest} is longer than containerd says")
        if "sha256:" + hashlib.sha256(data).hexdigest() != blob.digest:
            raise ImageError(
                f"{blob.digest} in containerd's content store has other bytes: pull the image again"
            )
        return bytes(data)

    async def chunks(self, blob: Descriptor) -> AsyncIterator[bytes]:
        """A blob's bytes as containerd sends them. Raises BlobMissingError."""
        stub = ContentStub(self._channel, timeout=STREAM_DEADLINE, metadata=self._metadata)
        with _translated(blob):
            async for answer in stub.read(ReadContentRequest(digest=blob.digest)):
                yield answer.data

    @contextlib.asynccontextmanager
    async def leased(self, name: str) -> AsyncIterator[None]:
        """While it is held, containerd's garbage collector keeps what `keep` names."""
        stub = LeasesStub(self._channel, timeout=DEADLINE, metadata=self._metadata)
        expires = (datetime.now(UTC) + LEASE_LIFE).isoformat(timespec="seconds")
        request = CreateRequest(id=name, labels={"containerd.io/gc.expire": expires})
        try:
            await _call(stub.create(request))
        except RemoteError as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise
        self.lease = name
        try:
            yield
        finally:
            self.lease = None
            with contextlib.suppress(ApiError):  # it expires by itself
                await _call(stub.delete(DeleteRequest(id=name)))

    async def keep(self, blob: Descriptor) -> None:
        """Adds a blob, and what containerd's labels say it refers to, to the lease at hand; none, nothing."""
        if self.lease is None:
            return
        stub = LeasesStub(self._channel, timeout=DEADLINE, metadata=self._metadata)
        resource = Resource(id=blob.digest, type="content")
        await _call(stub.add_resource(AddResourceRequest(id=self.lease, resource=resource)))


async def _call(answer: Awaitable[T]) -> T:
    with _translated(None):
        return await answer


@contextlib.contextmanager
def _translated(blob: Descriptor | None) -> Iterator[None]:
    try:
        yield
    except grpclib.GRPCError as error:
        message = f"containerd: {(error.message or error.status.name)[:300]}"
        if blob is not None and error.status is grpclib.Status.NOT_FOUND:
            raise BlobMissingError(
                f"containerd's content store lacks {blob.digest}: pull the image again, and set "
                "discard_unpacked_layers = false in its CRI configuration"
            ) from error
        raise RemoteError(Code(error.status.value), message) from error
    except TimeoutError as error:
        raise UnavailableError("containerd did not answer in time") from error
    except (OSError, StreamTerminatedError) as error:
        raise UnavailableError(f"containerd cannot be reached: {error}") from error
