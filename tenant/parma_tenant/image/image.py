"""An image that was found, and how one platform's is chosen out of an index as docker and containerd choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final, Protocol

from parma_tenant.image.blob import BlobStore, open_checked, read_document
from parma_tenant.image.documents import (
    INDEXES,
    Descriptor,
    ImageConfig,
    Platform,
    parse_config,
    parse_index,
    parse_manifest,
)
from parma_tenant.image.errors import ImageError
from parma_tenant.image.reference import Reference

PLATFORM: Final = Platform("linux", "amd64")
_ATTESTATION: Final = "vnd.docker.reference.type"
_MAX_DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: the digest of its uncompressed tar, what to call it, and its blob, of `size` bytes."""

    diff_id: str
    title: str
    size: int
    open: Callable[[], AbstractContextManager[BinaryIO]]
    """May be called in any thread. Raises ImageError, ImageMissingError, RegistryError."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a policy needs of an image; `digest` pins it (of its manifest or index), None where there is none."""

    reference: str
    digest: str | None
    config: ImageConfig
    layers: tuple[Layer, ...]
    pinnable: bool = False
    """Whether a node finds it by its digest: it came from a registry."""


class ImageSource(Protocol):
    """A place that images come from."""

    def find(self, reference: Reference) -> Image | None:
        """The image; None where it is not here. Raises ImageError, RegistryError."""


def load_image(store: BlobStore, root: Descriptor, name: str) -> Image:
    """The image for PLATFORM behind a manifest's or an index's descriptor. Raises ImageError and the store's errors."""
    manifest_descriptor = _manifest_of(store, root, name)
    manifest = parse_manifest(read_document(store, manifest_descriptor), name)
    config = parse_config(read_document(store, manifest.config), name)
    layers = [
        (blob.digest, blob.size, partial(open_checked, store, blob)) for blob in manifest.layers
    ]
    return make_image(name, root.digest, config, layers)


def make_image(
    name: str,
    digest: str | None,
    config: ImageConfig,
    blobs: Sequence[tuple[str, int, Callable[[], AbstractContextManager[BinaryIO]]]],
) -> Image:
    """`blobs` are title, size and opener of each layer, base first. Raises ImageError."""
    if config.platform.os not in ("", PLATFORM.os):
        raise ImageError(f"{name} is for {config.platform.os}: containers of a group run on Linux")
    if config.platform.architecture not in ("", PLATFORM.architecture):
        raise ImageError(
            f"{name} is for {config.platform.architecture}, not for {PLATFORM.architecture}"
        )
    if len(config.diff_ids) != len(blobs):
        raise ImageError(f"{name}: configuration and manifest disagree about the number of layers")
    layers = tuple(
        Layer(diff_id, *blob) for diff_id, blob in zip(config.diff_ids, blobs, strict=True)
    )
    return Image(name, digest, config, layers)


def _manifest_of(store: BlobStore, root: Descriptor, name: str) -> Descriptor:
    for _ in range(_MAX_DEPTH):
        if root.media_type not in INDEXES:
            return root
        root = choose(parse_index(read_document(store, root), name), name)
    raise ImageError(f"{name}: an index in an index in an index")


def choose(manifests: Sequence[Descriptor], name: str) -> Descriptor:
    """The best entry for PLATFORM; attestations are none. Raises ImageError."""
    fitting = [
        entry for entry in manifests if _ATTESTATION not in entry.annotations and _fits(entry)
    ]
    if not fitting:
        raise ImageError(f"{name} has no image for {PLATFORM.os}/{PLATFORM.architecture}")
    return min(fitting, key=_preference)


def _fits(entry: Descriptor) -> bool:
    platform = entry.platform
    if platform is None or not platform.os:
        return True
    return (platform.os, platform.architecture) == (PLATFORM.os, PLATFORM.architecture)


def _preference(entry: Descriptor) -> int:
    """A stated platform before none; the plain variant before v2, v3 (a QEMU's CPU may lack what those need)."""
    if entry.platform is None or not entry.platform.os:
        return 9
    variant = entry.platform.variant
    return 0 if variant in ("", "v1") else 1 if variant == "v2" else 2
