"""Where to look for images, in the order in which the places were named; a registry comes last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from parma_tenant.image.containerd import ContainerdSource
from parma_tenant.image.docker import MANIFEST, DockerSource
from parma_tenant.image.errors import ImageMissingError
from parma_tenant.image.image import Image, ImageSource
from parma_tenant.image.layout import ArchiveFiles, Files, FolderFiles, LayoutSource
from parma_tenant.image.reference import parse_reference
from parma_tenant.image.registry import RegistrySource


@dataclass(frozen=True, slots=True)
class Places:
    """What the command line named."""

    archives: tuple[Path, ...] = ()
    layouts: tuple[Path, ...] = ()
    containerd: Path | None = None
    registry: RegistrySource | None = None


def open_sources(places: Places, stack: ExitStack) -> list[ImageSource]:
    """Archives stay open until `stack` is closed. Raises ImageError, ImageMissingError."""
    sources: list[ImageSource] = []
    for path in places.archives:
        if path.is_dir():
            sources += _of_files(FolderFiles(path))
            continue
        files = ArchiveFiles(path)
        stack.callback(files.close)
        sources += _of_files(files)
    for path in places.layouts:
        sources += _of_files(FolderFiles(path))
    if places.containerd is not None:
        sources.append(ContainerdSource(places.containerd))
    if places.registry is not None:
        sources.append(places.registry)
    return sources


def _of_files(files: Files) -> list[ImageSource]:
    """Newer archives of docker are layouts too; both indexes are asked, since podman's lists names in one only."""
    found: list[ImageSource] = []
    if files.has("index.json"):
        found.append(LayoutSource(files))
    if files.has(MANIFEST):
        found.append(DockerSource(files))
    if not found:
        raise ImageMissingError(
            f"{files.name} holds no images: it has neither index.json (OCI) nor {MANIFEST} (docker save)"
        )
    return found


def find_images(names: Iterable[str], sources: Sequence[ImageSource]) -> dict[str, Image]:
    """Each name's image. Raises ImageError, ImageMissingError, RegistryError."""
    return {name: _find(name, sources) for name in dict.fromkeys(names)}


def _find(name: str, sources: Sequence[ImageSource]) -> Image:
    reference = parse_reference(name)
    for source in sources:
        if (image := source.find(reference)) is not None:
            return image
    raise ImageMissingError(
        f"image {reference} is in none of the places that were named: give --archive, --layout or --containerd, "
        "or leave --offline out"
    )
