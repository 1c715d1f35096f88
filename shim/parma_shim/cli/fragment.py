"""`parma fragment`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import click

from parma_api.status import ApiError, Code, InvalidArgumentError

DEADLINE = 60.0
"""Seconds; the guest compiles the fragment with its policy, and under TCG that takes its time."""
_REFUSED = 1


@click.group()
def fragment() -> None:
    """Hand signed policy fragments to running groups.

    Example: parma fragment load --sandbox 3f2a9c sidecars.cose
    """


@fragment.command("load")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--sandbox", required=True, help="Id of the pod's sandbox, or its beginning.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a line.")
def load_command(*, file: Path, sandbox: str, as_json: bool) -> None:
    """Load FILE (COSE_Sign1: a fragment, or a list of trusted receipts) into a running group.

    The group's policy judges it: signature, issuer, feed and version. Exit 1 if it is refused; the group runs on as it
    was.

    Example: parma fragment load --sandbox 3f2a9c sidecars.cose
    """
    envelope = _read(file)
    try:
        asyncio.run(_load(sandbox, envelope))
    except ApiError as error:
        if error.code is not Code.PERMISSION_DENIED:
            raise
        if as_json:
            click.echo(json.dumps({"loaded": False, "reason": error.message}))
        click.echo(f"refused: {error.message}", err=True)
        sys.exit(_REFUSED)
    click.echo(json.dumps({"loaded": True}) if as_json else f"{file} is loaded")


def _read(file: Path) -> bytes:
    """Raises InvalidArgumentError."""
    from parma_shim.podconfig import MAX_FRAGMENT

    try:
        with file.open("rb") as stream:
            envelope = stream.read(MAX_FRAGMENT + 1)
    except OSError as error:
        raise InvalidArgumentError(f"{file} cannot be read: {error.strerror}") from error
    if not 0 < len(envelope) <= MAX_FRAGMENT:
        raise InvalidArgumentError(f"{file}: a fragment has 1 to {MAX_FRAGMENT} bytes")
    return envelope


async def _load(sandbox: str, envelope: bytes) -> None:
    from parma_api.channel.stream import connect_unix
    from parma_api.gen.parma.shim.v1 import ControlStub, LoadFragmentRequest
    from parma_api.ttrpc.client import TtrpcClient
    from parma_shim.config import load_config
    from parma_shim.lifecycle.running import running_group

    group = running_group(load_config(os.environ).run_dir, sandbox)
    async with TtrpcClient(await connect_unix(group.socket)) as client:
        request = LoadFragmentRequest(envelope=envelope)
        await ControlStub(client).load_fragment(request, timeout=DEADLINE)
