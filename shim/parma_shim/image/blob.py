"""A layer's blob as a file, for the converter, which reads in a thread: opened in the content store, or streamed."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from parma_shim.image.client import ContainerdClient
from parma_shim.image.manifest import Descriptor

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONTENT_STORE = "io.containerd.content.v1.content"
SNAPSHOTTERS = "io.containerd.snapshotter.v1."


def content_store(snapshot_paths: tuple[str, ...]) -> Path | None:
    """containerd's content store, told by where the snapshotter keeps its directories; None for a foreign one."""
    for path in snapshot_paths:
        root, found, _rest = path.partition(f"/{SNAPSHOTTERS}")
        if found:
            return Path(root) / CONTENT_STORE
    return None


def open_stored(store: Path, blob: Descriptor) -> BinaryIO | None:
    """The blob's file; None if it is not there or has another length (the stream then tells what is wrong)."""
    algorithm, _, digest = blob.digest.partition(":")
    try:
        file = (store / "blobs" / algorithm / digest).open("rb")
    except OSError:
        return None
    if file.seek(0, io.SEEK_END) != blob.size:
        file.close()
        return None
    file.seek(0)
    return file


class StreamedBlob(io.RawIOBase):
    """Reads a blob over gRPC, in a thread that is not the event loop's. Raises as `ContainerdClient.chunks`."""

    def __init__(
        self, client: ContainerdClient, blob: Descriptor, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__()
        self._chunks: AsyncIterator[bytes] = client.chunks(blob)
        self._loop = loop
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills `buffer` with what is there; 0 at the end."""
        while not self._rest:
            chunk = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)
