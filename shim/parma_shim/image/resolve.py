"""From a container's record to the layers that the guest shall get, base first.

    container -> image name -> descriptor -> (index ->) manifest -> config -> diff ids
    container -> snapshot -> parent's chain id: must be that of the diff ids

The last comparison catches a name that was moved to another image after the container was made. All of it is the host's
word: what runs is decided in the guest, by root hashes.
"""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from parma_api.ids import DiffId
from parma_api.status import Code, RemoteError
from parma_shim.image.blob import StreamedBlob, content_store, open_stored
from parma_shim.image.client import ContainerdClient
from parma_shim.image.errors import ImageError
from parma_shim.image.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    chain_id,
    choose_platform,
    parse_diff_ids,
    parse_manifest,
)

MAX_INDEX_DEPTH = 3
STREAM_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class LayerRef:
    """One layer: what it is called uncompressed, and where its blob is."""

    diff_id: DiffId
    digest: str
    size: int
    _client: ContainerdClient = field(repr=False)
    _store: Path | None
    _loop: asyncio.AbstractEventLoop = field(repr=False)
    media_type: str

    def open_blob(self) -> BinaryIO:
        """The (compressed) blob. Call and read it in a thread: without access to the store it comes over gRPC."""
        blob = Descriptor(self.media_type, self.digest, self.size)
        if self._store is not None and (file := open_stored(self._store, blob)) is not None:
            return file
        stream = io.BufferedReader(StreamedBlob(self._client, blob, self._loop), STREAM_BUFFER)
        return cast("BinaryIO", stream)


async def resolve_layers(client: ContainerdClient, container_id: str) -> tuple[LayerRef, ...]:
    """The layers of a container's image. `client` must live as long as a blob is read.

    Raises ImageError (no image, no layers, another platform, a moved name, a strange document), BlobMissingError,
    RemoteError, UnavailableError.
    """
    container = await client.container(container_id)
    if not container.image:
        raise ImageError(
            "the container has no image (--rootfs?): a utility VM runs images, whose layers have hashes"
        )
    manifest, diff_ids = await resolve_image(client, container.image)
    store = None
    if container.snapshot_key:
        await _compare(client, container.snapshotter, container.snapshot_key, diff_ids)
        store = content_store(
            await client.snapshot_paths(container.snapshotter, container.snapshot_key)
        )
    loop = asyncio.get_running_loop()
    return tuple(
        LayerRef(diff_id, layer.digest, layer.size, client, store, loop, layer.media_type)
        for diff_id, layer in zip(diff_ids, manifest.layers, strict=True)
    )


async def resolve_image(client: ContainerdClient, name: str) -> tuple[Manifest, tuple[DiffId, ...]]:
    """Manifest and diff ids of what `name` stands for now. Raises as `resolve_layers`."""
    try:
        target = await client.image(name)
    except RemoteError as error:
        if error.code is Code.NOT_FOUND:
            raise ImageError(f"containerd has no image {name!r} any more: pull it again") from error
        raise
    target = await _manifest_of(client, target)
    await client.keep(target)
    manifest = parse_manifest(await client.document(target))
    return manifest, parse_diff_ids(await client.document(manifest.config), manifest)


async def _manifest_of(client: ContainerdClient, target: Descriptor) -> Descriptor:
    for _ in range(MAX_INDEX_DEPTH):
        if target.media_type in MANIFEST_TYPES:
            return target
        if target.media_type not in INDEX_TYPES:
            raise ImageError(
                f"this is no image: {target.media_type[:100]!r} (schema 1 images must be converted)"
            )
        target = choose_platform(await client.document(target))
    raise ImageError("the image's index leads to an index, again and again")


async def _compare(
    client: ContainerdClient, snapshotter: str, key: str, diff_ids: tuple[DiffId, ...]
) -> None:
    parent = await client.snapshot_parent(snapshotter, key)
    if parent != chain_id(diff_ids):
        raise ImageError(
            "the container's snapshot is not made of its image's layers: the image's name was moved to another image; "
            "make the container again"
        )
