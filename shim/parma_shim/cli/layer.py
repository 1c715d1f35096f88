"""`parma layer`."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import cast

import click

from parma_api.layer.compression import open_tar
from parma_api.layer.convert import LayerImage, convert
from parma_api.status import InvalidArgumentError


@click.group()
def layer() -> None:
    """Convert image layers and see what was converted.

    Example: parma layer convert layer.tar.gz layer.img --json
    """


@layer.command("convert")
@click.argument("source", metavar="LAYER")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def convert_command(source: str, out: Path, as_json: bool) -> None:  # noqa: FBT001
    """Convert LAYER (tar, tar.gz, tar.zst, or - for standard input) to the verity image OUT.

    Example: parma layer convert layer.tar.gz layer.img --json
    """
    result = _convert(source, out)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result)))
    else:
        click.echo(f"{out}: root hash {result.root_hash}, {result.file_size} bytes")


def _convert(source: str, out: Path) -> LayerImage:
    try:
        if source == "-":
            return _run(cast("io.BufferedReader", sys.stdin.buffer), out)
        with Path(source).open("rb") as stream:
            return _run(stream, out)
    except OSError as error:
        raise InvalidArgumentError(
            f"{error.filename or source}: {error.strerror}; nothing was written"
        ) from error


def _run(stream: io.BufferedReader, out: Path) -> LayerImage:
    return convert(open_tar(stream), out)
