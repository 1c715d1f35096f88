"""OCI and Docker documents: index, manifest, config. Bytes in, descriptors out; pure.

Written by whoever made the image and stored by the host: sizes are capped, kinds that we do not know are refused, and
an image that has no layers never becomes "no layers to check" (CVE-2026-24054).
Source: OCI image-spec 1.1 (manifest.md, image-index.md, config.md, layer.md), Docker image manifest v2 schema 2.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parma_api.ids import DiffId
from parma_shim.image.errors import ImageError

MAX_DOCUMENT = 8 << 20
MAX_LAYERS = 127
"""What overlay and containerd's snapshotters take."""
MAX_BLOB = 1 << 40

INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
CONFIG_TYPES = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
LAYER_TYPES = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: its kind, its digest (`sha256:...`) and its size in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image for one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


def descriptor(value: object, what: str) -> Descriptor:
    """A descriptor out of a document. Raises ImageError."""
    entry = _mapping(value, what)
    media_type, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise ImageError(f"{what} has no media type or no digest")
    check_digest(digest, what)
    if type(size) is not int or not 0 < size <= MAX_BLOB:
        raise ImageError(f"{what} has no usable size")
    return Descriptor(media_type, digest, size)


def check_digest(digest: str, what: str) -> None:
    """Raises ImageError for anything but `sha256:` and 64 hexadecimal digits: digests become file names."""
    if not _DIGEST.fullmatch(digest):
        raise ImageError(f"{what} has a digest that is not sha256")


def choose_platform(index: bytes) -> Descriptor:
    """The manifest of linux/amd64 in an index. Raises ImageError."""
    manifests = _document(index, "the image's index").get("manifests")
    if not isinstance(manifests, list):
        raise ImageError("the image's index has no manifests")
    for entry in manifests:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if isinstance(platform, dict) and _is_ours(platform):
            return descriptor(entry, "the image's manifest")
    if len(manifests) == 1 and isinstance(manifests[0], dict) and "platform" not in manifests[0]:
        return descriptor(manifests[0], "the image's manifest")
    raise ImageError("the image has no manifest for linux/amd64")


def parse_manifest(text: bytes) -> Manifest:
    """Config and layers. Raises ImageError for no layers, too many, or kinds that no layer of a container has."""
    document = _document(text, "the image's manifest")
    if document.get("schemaVersion") != 2:
        raise ImageError(
            "the image's manifest is not of schema version 2: convert or rebuild the image"
        )
    config = descriptor(document.get("config"), "the image's config")
    if config.media_type not in CONFIG_TYPES:
        raise ImageError(f"this is no container image: its config is {config.media_type[:100]!r}")
    layers = document.get("layers")
    if not isinstance(layers, list) or not layers:
        raise ImageError(
            "the image has no layers: there is nothing that a policy could allow; rebuild it with one"
        )
    if len(layers) > MAX_LAYERS:
        raise ImageError(f"the image has {len(layers)} layers: at most {MAX_LAYERS} can be stacked")
    return Manifest(config, tuple(_layer(layer, n) for n, layer in enumerate(layers)))


def parse_diff_ids(text: bytes, manifest: Manifest) -> tuple[DiffId, ...]:
    """The digests of the uncompressed layers, base first. Raises ImageError if they do not fit the manifest."""
    document = _document(text, "the image's config")
    platform = {"os": document.get("os"), "architecture": document.get("architecture")}
    if not _is_ours(platform):
        raise ImageError(
            f"the image is for {str(platform['os'])[:40]}/{str(platform['architecture'])[:40]}: linux/amd64 runs here"
        )
    rootfs = _mapping(document.get("rootfs"), "the image's rootfs")
    diff_ids = rootfs.get("diff_ids")
    if rootfs.get("type") != "layers" or not isinstance(diff_ids, list):
        raise ImageError("the image's config lists no layers")
    if len(diff_ids) != len(manifest.layers):
        raise ImageError(
            f"the image's config has {len(diff_ids)} layers and its manifest {len(manifest.layers)}"
        )
    for number, diff_id in enumerate(diff_ids):
        check_digest(str(diff_id), f"diff id {number} of the image's config")
    return tuple(DiffId(diff_id) for diff_id in diff_ids)


def chain_id(diff_ids: Sequence[DiffId]) -> str:
    """The name of the whole stack (OCI image-spec, config.md, "Layer ChainID"), which containerd's snapshots bear."""
    chain: str = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()
    return chain


def _layer(value: object, number: int) -> Descriptor:
    layer = descriptor(value, f"layer {number} of the image")
    if layer.media_type not in LAYER_TYPES:
        raise ImageError(
            f"layer {number} of the image is {layer.media_type[:100]!r}: not a layer that can be converted"
        )
    return layer


def _is_ours(platform: Mapping[str, object]) -> bool:
    return platform.get("os") == "linux" and platform.get("architecture") == "amd64"


def _document(text: bytes, what: str) -> Mapping[str, object]:
    if len(text) > MAX_DOCUMENT:
        raise ImageError(f"{what} has more than {MAX_DOCUMENT} bytes")
    try:
        return _mapping(json.loads(text), what)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is no JSON document") from error


def _mapping(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ImageError(f"{what} is no JSON object")
    return value
