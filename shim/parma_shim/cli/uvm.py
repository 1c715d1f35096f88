"""`parma uvm`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from parma_api.status import ApiError

if TYPE_CHECKING:
    from parma_api.launch import UvmImage, Variant


@click.group()
def uvm() -> None:
    """Show and check the utility VM images of this host. `make uvm` builds them.

    Example: parma uvm ls
    """


_json = click.option("--json", "as_json", is_flag=True, help="One JSON array instead of lines.")


@uvm.command("ls")
@_json
def list_command(*, as_json: bool) -> None:
    """List the image that a pod would get, of each variant, with kernel and size.

    Example: parma uvm ls --json
    """
    rows = [_row(variant, check=False) for variant in _variants()]
    _print(rows, as_json=as_json)


@uvm.command("check")
@_json
def check_command(*, as_json: bool) -> None:
    """Read every file of the images and compare its digest; exit 1 if one is not as image.json says, or none is there.

    Example: parma uvm check
    """
    rows = [_row(variant, check=True) for variant in _variants()]
    _print(rows, as_json=as_json)
    present = [row for row in rows if row["directory"]]
    if not present or any(row["problem"] for row in present):
        raise SystemExit(1)


def _variants() -> tuple[Variant, ...]:
    from parma_api.launch import Variant

    return tuple(Variant)


def _row(variant: Variant, *, check: bool) -> dict[str, object]:
    from parma_shim.vmm.image import candidates, find_image

    places = candidates(os.environ, variant)
    row: dict[str, object] = {"variant": variant.value, "directory": "", "problem": ""}
    if not any((place / "image.json").exists() for place in places):
        return row | {"problem": f"no image in {', '.join(map(str, places))}: run `make uvm`"}
    row["directory"] = str(next(x for x in places if (x / "image.json").exists()).resolve())
    try:
        image = find_image(os.environ, variant)
        row |= _facts(image)
        for file in image.files:
            file.verify() if check else file.check_size()
    except ApiError as error:
        row["problem"] = error.message
    return row


def _facts(image: UvmImage) -> dict[str, object]:
    return {
        "variant": image.variant.value,
        "kernel": image.kernel_version,
        "size": sum(file.size for file in image.files),
        "root_sha256": image.root.sha256,
    }


def _print(rows: list[dict[str, object]], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        if "kernel" in row:
            size = int(str(row["size"])) >> 20
            click.echo(f"{row['variant']:8} {row['kernel']}  {size} MiB  {row['directory']}")
        if row["problem"]:
            click.echo(f"{row['variant']:8} {row['problem']}")
