"""Archives of `docker save` (Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format").

Their layers carry no digests of their own; the image's configuration, whose digests are of the uncompressed tars,
decides. Newer archives are OCI layouts too and are read as those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from parma_tenant.image.documents import MAX_LAYERS, parse_config
from parma_tenant.image.errors import ImageError
from parma_tenant.image.image import Image, make_image
from parma_tenant.image.layout import Files, read_small
from parma_tenant.image.reference import Reference, parse_reference

MANIFEST: Final = "manifest.json"


class DockerSource:
    """The images of an archive, by their tags."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._entries = _entries(files)

    def find(self, reference: Reference) -> Image | None:
        """As in ImageSource; such an archive knows no digests of manifests, so one with a digest is never found."""
        if reference.digest is not None:
            return None
        for entry in self._entries:
            if reference.without_digest in _names(entry):
                return self._load(entry, str(reference))
        return None

    def _load(self, entry: Mapping[str, Any], name: str) -> Image:
        config, layers = entry.get("Config"), entry.get("Layers")
        if not isinstance(config, str) or not isinstance(layers, list) or len(layers) > MAX_LAYERS:
            raise ImageError(
                f"{self._files.name}: {MANIFEST} is not of the form that docker writes"
            )
        blobs = [(str(path), 0, partial(self._files.open, str(path))) for path in layers]
        parsed = parse_config(read_small(self._files, config), f"{self._files.name}: {config}")
        return make_image(name, None, parsed, blobs)


def _entries(files: Files) -> Sequence[Mapping[str, Any]]:
    try:
        document = json.loads(read_small(files, MANIFEST))
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{files.name}: {MANIFEST} is no JSON: {error}") from error
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise ImageError(f"{files.name}: {MANIFEST} is no list of objects")
    return document


def _names(entry: Mapping[str, Any]) -> list[str]:
    names = []
    for tag in entry.get("RepoTags") or ():
        with suppress(ImageError):
            names.append(parse_reference(str(tag)).without_digest)
    return names
