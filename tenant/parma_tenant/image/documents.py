"""Manifests, indexes and configurations: hostile JSON in, frozen values out.

Sources: OCI image-spec 1.1 (descriptor.md, manifest.md, image-index.md, config.md); Docker image manifest v2.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from parma_tenant.image.errors import ImageError, shown

MAX_DOCUMENT: Final = 8 << 20
"""Bytes of one JSON document; containerd's own limit for a manifest is 8 MiB."""
MAX_LAYERS: Final = 512
INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_LAYER_TYPES: Final = re.compile(
    r"application/vnd\.(oci\.image\.layer(\.nondistributable)?\.v1\.tar(\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(diff|foreign\.diff)\.tar(\.gzip|\.zstd)?)"
)


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image of an index runs on."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: what it is, its digest and its size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image's configuration and layers, base first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The part of an image's configuration that decides how a container runs."""

    diff_ids: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    platform: Platform = Platform()


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """An object. Raises ImageError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is no JSON: {shown(error)}") from error
    if not isinstance(document, dict):
        raise ImageError(f"{what} is no JSON object")
    return document


def _folded(document: object, what: str) -> dict[str, Any]:
    """An object with its names in lower case: Go, which containerd reads it with, does not tell them apart."""
    if not isinstance(document, dict):
        raise ImageError(f"{what} is no JSON object")
    return {str(key).casefold(): value for key, value in document.items()}


def check_digest(text: object, what: str) -> str:
    """Raises ImageError for what is no digest that can be checked."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ImageError(f"{what}: {shown(text)} is no sha256 or sha512 digest")
    return text


def parse_descriptor(document: object, what: str) -> Descriptor:
    """Raises ImageError."""
    if not isinstance(document, dict):
        raise ImageError(f"{what}: a descriptor is no object")
    size = document.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ImageError(f"{what}: a descriptor without a size")
    return Descriptor(
        _text(document, "mediaType", what),
        check_digest(document.get("digest"), what),
        size,
        _platform(document.get("platform")),
        _annotations(document.get("annotations")),
    )


def _platform(document: object) -> Platform | None:
    if not isinstance(document, dict):
        return None
    os, architecture, variant = (
        str(document.get(key) or "") for key in ("os", "architecture", "variant")
    )
    return Platform(os, architecture, variant)


def _annotations(document: object) -> dict[str, str]:
    if not isinstance(document, dict):
        return {}
    return {str(key): value for key, value in document.items() if isinstance(value, str)}


def parse_index(data: bytes, what: str) -> tuple[Descriptor, ...]:
    """The manifests that an index lists. Raises ImageError."""
    document = parse_json(data, what)
    listed = document.get("manifests")
    if "layers" in document or "config" in document or document.get("mediaType") in MANIFESTS:
        raise ImageError(f"{what}: an index that is a manifest too, which containerd refuses")
    if not isinstance(listed, list) or len(listed) > 4096:
        raise ImageError(f"{what} is no image index: it has no list `manifests`, or too long a one")
    return tuple(parse_descriptor(entry, what) for entry in listed)


def parse_manifest(data: bytes, what: str) -> Manifest:
    """Raises ImageError, also for an artifact that is no image."""
    document = parse_json(data, what)
    layers = document.get("layers")
    if not isinstance(layers, list) or "config" not in document:
        if document.get("schemaVersion") == 1:
            raise ImageError(
                f"{what} is a schema 1 manifest: push the image again with a newer tool"
            )
        raise ImageError(f"{what} is no image manifest")
    if document.get("manifests") or document.get("mediaType") in INDEXES:
        raise ImageError(f"{what}: a manifest that is an index too, which containerd refuses")
    if len(layers) > MAX_LAYERS:
        raise ImageError(f"{what} has more than {MAX_LAYERS} layers")
    found = tuple(parse_descriptor(layer, what) for layer in layers)
    for layer in found:
        if not _LAYER_TYPES.fullmatch(layer.media_type):
            kind = shown(layer.media_type)
            raise ImageError(f"{what}: a layer of type {kind} cannot be hashed")
    return Manifest(parse_descriptor(document["config"], what), found)


def parse_config(data: bytes, what: str) -> ImageConfig:
    """Raises ImageError."""
    document = _folded(parse_json(data, what), what)
    diff_ids = _folded(document.get("rootfs") or {}, what).get("diff_ids")
    if not isinstance(diff_ids, list) or not diff_ids:
        raise ImageError(f"{what} has no layers: there is nothing that a policy could name")
    config = _folded(document.get("config") or {}, what)
    volumes = config.get("volumes") or {}
    if not isinstance(volumes, dict):
        raise ImageError(f"{what}: `Volumes` is no object")
    return ImageConfig(
        diff_ids=tuple(check_digest(entry, what) for entry in diff_ids),
        entrypoint=_texts(config, "Entrypoint", what),
        cmd=_texts(config, "Cmd", what),
        env=_texts(config, "Env", what),
        working_dir=_text(config, "WorkingDir", what, folded=True),
        user=_text(config, "User", what, folded=True),
        volumes=tuple(sorted(map(str, volumes))),
        stop_signal=_text(config, "StopSignal", what, folded=True),
        platform=_platform(document) or Platform(),
    )


def _text(document: Mapping[str, Any], key: str, what: str, *, folded: bool = False) -> str:
    value = document.get(key.casefold() if folded else key) or ""
    if not isinstance(value, str):
        raise ImageError(f"{what}: `{key}` is no text")
    return value


def _texts(document: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    value = document.get(key.casefold()) or []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ImageError(f"{what}: `{key}` is no list of texts")
    return tuple(value)
