"""`parma layer`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from parma_api.layer import Digests, LayerImage, convert
from parma_api.status import InvalidArgumentError

if TYPE_CHECKING:
    from parma_shim.layers.cache import LayerCache

_SHOW_EVERY = 0.2
"""Seconds."""


@click.group()
def layer() -> None:
    """Convert image layers, and see what this host keeps of them.

    Example: parma layer convert layer.tar.gz layer.img --json
    """


_json = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")


@layer.command("convert")
@click.argument("source", metavar="LAYER")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@_json
def convert_command(*, source: str, out: Path, as_json: bool) -> None:
    """Convert LAYER (tar, tar.gz, tar.zst, or - for standard input) to the verity image OUT.

    OUT is replaced when all is done. If the conversion fails, no OUT is left, an older one neither.

    Example: parma layer convert layer.tar.gz layer.img --json
    """
    if out.exists() and source != "-" and Path(source).exists() and out.samefile(source):
        raise InvalidArgumentError(f"OUT is LAYER itself ({out}): name another file")
    image = _run(source, out)
    if as_json:
        fields = dataclasses.asdict(image)
        del fields["diff_id"]
        click.echo(json.dumps(fields))
    else:
        _show(image)


@layer.command("hash")
@click.argument("source", metavar="LAYER")
@_json
def hash_command(*, source: str, as_json: bool) -> None:
    """Compute the root hash that a policy names for LAYER, and its diff id; nothing is written.

    Example: parma layer hash layer.tar.gz
    """
    image = _run(source, None)
    if as_json:
        fields = ("root_hash", "diff_id", "data_blocks", "image_size", "file_size")
        click.echo(json.dumps({name: getattr(image, name) for name in fields}))
    else:
        _show(image)


@layer.command("ls")
@_json
def list_command(*, as_json: bool) -> None:
    """List the converted layers that this host keeps, the last used last.

    Example: parma layer ls --json
    """
    entries = _cache().entries()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(entry) for entry in entries]))
        return
    for entry in entries:
        used = datetime.fromtimestamp(entry.last_used, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        state = "in use" if entry.in_use else ""
        click.echo(f"{entry.diff_id}  {entry.size >> 20:6} MiB  {used}  {state}".rstrip())


@layer.command("prune")
@click.option(
    "--keep-mib", type=click.IntRange(0), default=0, show_default=True, help="How much may stay."
)
@_json
def prune_command(*, keep_mib: int, as_json: bool) -> None:
    """Remove converted layers that no pod uses, the longest unused first.

    Example: parma layer prune --keep-mib 4096
    """
    freed = _cache().prune(keep_mib << 20)
    click.echo(json.dumps({"freed": freed}) if as_json else f"{freed >> 20} MiB freed")


def _cache() -> LayerCache:
    """This host's cache."""
    from parma_shim.config import load_config
    from parma_shim.layers.cache import LayerCache

    config = load_config(os.environ)
    return LayerCache(config.lib_dir / "layers", config.layer_cache_mib << 20)


def _show(image: LayerImage) -> None:
    click.echo(f"root hash {image.root_hash}")
    click.echo(f"diff id   {image.diff_id}")
    click.echo(f"size      {image.file_size} bytes, {image.image_size} of them the file system")


def _run(source: str, out: Path | None) -> LayerImage:
    with _opened(source) as stream, _progress(_size(stream)) as progress:
        return convert(stream, out, digests=Digests.ALL, progress=progress)


@contextmanager
def _progress(size: int) -> Iterator[Callable[[int], None]]:
    """Shows what was read, on a terminal only, a few times a second."""
    if not sys.stderr.isatty():
        yield lambda _read: None
        return
    total = f" of {size >> 20}" if size else ""
    last = 0.0

    def show(read: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > _SHOW_EVERY:
            last = now
            click.echo(f"\rconverting: {read >> 20}{total} MiB", err=True, nl=False)

    try:
        yield show
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    """The layer's bytes, unbuffered: the converter reads large pieces."""
    if source == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(source).open("rb", buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise InvalidArgumentError(f"{source} cannot be opened: {error.strerror}") from error
    with stream:
        yield stream


def _size(stream: BinaryIO) -> int:
    """Bytes, as far as one can know: a pipe has none."""
    try:
        return os.fstat(stream.fileno()).st_size
    except OSError:
        return 0
