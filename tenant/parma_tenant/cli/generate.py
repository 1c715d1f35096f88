"""`parma policy generate`."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from parma_api.status import ApiError
from parma_tenant.generate.build import build_policy
from parma_tenant.generate.rego import render
from parma_tenant.image.errors import ImageMissingError
from parma_tenant.image.hashing import HashCache, default_cache, hash_layers
from parma_tenant.image.image import Image, ImageSource
from parma_tenant.image.layout import ArchiveFiles, LayoutSource
from parma_tenant.image.reference import parse_reference
from parma_tenant.source.document import read_documents
from parma_tenant.source.errors import SourceError
from parma_tenant.source.fields import Fields
from parma_tenant.source.group import parse_group

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("source", type=_FILE)
@click.option("--archive", "archives", type=_FILE, multiple=True, help="A tar with images.")
@click.option("--output", type=_FILE, help="Where the policy goes [default: standard output].")
def generate(source: Path, archives: tuple[Path, ...], output: Path | None) -> None:
    """Write the policy of a container group.

    Example: parma policy generate group.yaml --archive images.tar --output policy.rego
    """
    try:
        with ExitStack() as stack:
            text = _generated(source, archives, stack)
        if output is None:
            click.echo(text, nl=False)
        else:
            _write(output, text)
    except ApiError as error:
        click.echo(f"parma policy: {error.message.splitlines()[0]}", err=True)
        sys.exit(2)
    click.echo(f"HOST_DATA {hashlib.sha256(text).hexdigest()}", err=True)


def _generated(source: Path, archives: tuple[Path, ...], stack: ExitStack) -> bytes:
    try:
        documents = read_documents(source.read_bytes(), source.name)
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {error.strerror}") from error
    if len(documents) != 1:
        raise SourceError(f"{source.name} has {len(documents)} documents: one is expected")
    group = parse_group(Fields(documents[0], source.name))
    sources: list[ImageSource] = []
    for path in archives:
        files = ArchiveFiles(path)
        stack.callback(files.close)
        sources.append(LayoutSource(files))
    images = {spec.image: _find(spec.image, sources) for spec in group.containers}
    layers = [layer for image in images.values() for layer in image.layers]
    roots = hash_layers(layers, HashCache(default_cache()))
    return render(build_policy(group, images, roots)).encode()


def _find(name: str, sources: list[ImageSource]) -> Image:
    reference = parse_reference(name)
    for source in sources:
        if (image := source.find(reference)) is not None:
            return image
    raise ImageMissingError(f"image {reference} is in none of the places that were named")


def _write(path: Path, text: bytes) -> None:
    """All or nothing."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(text)
        os.replace(part, path)  # noqa: PTH105
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SourceError(f"{path} cannot be written: {error.strerror}") from error
