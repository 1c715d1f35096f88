"""`parma attest connect`: an attested TLS connection, verified before a byte of payload."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from parma_api.status import InvalidArgumentError

if TYPE_CHECKING:
    from parma_tenant.claims.client import AttestedConnection
    from parma_tenant.claims.evidence import Demand
    from parma_tenant.claims.tls import TlsStream

_FILE = click.Path(path_type=Path)
_ADDRESS: Final = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.%]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})"
)
_CHUNK: Final = 16 * 1024
_AHEAD: Final = 16


@click.command()
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--expect",
    type=_FILE,
    required=True,
    help="Expectations (JSON) that name measurement and host_data.",
)
@click.option(
    "--trust-root",
    type=_FILE,
    multiple=True,
    help="A root besides AMD's: a stub's, for development.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=60.0,
    show_default=True,
    help="For the handshake.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the verification as JSON and connect no further."
)
def connect(
    *, address: str, expect: Path, trust_root: tuple[Path, ...], seconds: float, as_json: bool
) -> None:
    """Connect to a group's attested TLS server; carry standard input and output once it is verified.

    Exit 0 if the group is the expected one, 1 if it is refused (nothing was sent), 2 if it cannot be reached.

    Example: parma attest connect group.example:8443 --expect expect.json
    """
    from parma_tenant.claims.evidence import Demand, RefusedError
    from parma_tenant.cli.attest import read_file, roots_of
    from parma_tenant.verify.expectation import parse_expectation

    host, port = host_and_port(address, "the address")
    demand = Demand(parse_expectation(read_file(expect)), roots_of(trust_root))
    try:
        asyncio.run(_converse(host, port, demand, seconds, as_json=as_json))
    except RefusedError as error:
        _show_refusal(error, as_json=as_json)
        click.get_current_context().exit(1)


def host_and_port(text: str, what: str) -> tuple[str, int]:
    """`host:port`, `[v6]:port`. Raises InvalidArgumentError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 0xFFFF:
        raise InvalidArgumentError(f"{what} {text[:80]!r} is not HOST:PORT")
    return found["v6"] or found["host"], int(found["port"])


def _show_refusal(error: object, *, as_json: bool) -> None:
    from parma_tenant.claims.evidence import RefusedError

    assert isinstance(error, RefusedError)
    if as_json:
        found = error.verification
        document = (
            {"verdict": "refuse", "claims": {}, "checks": []} if found is None else found.to_json()
        )
        click.echo(json.dumps(document | {"reason": error.message}))
    else:
        click.echo(f"refuse: {error.message}", err=True)


async def _converse(host: str, port: int, demand: Demand, seconds: float, *, as_json: bool) -> None:
    from parma_tenant.claims.client import connect as dial

    async with dial(host, port, demand, seconds=seconds) as peer:
        if as_json:
            click.echo(json.dumps(peer.attested.verification.to_json()))
            return
        click.echo(_described(peer), err=True)
        await _carry(peer.stream)


def _described(peer: AttestedConnection) -> str:
    claims = peer.attested.verification.claims
    return f"accept: root {claims['root']}, measurement {claims['measurement']}, host_data {claims['host_data']}"


async def _carry(stream: TlsStream) -> None:
    """Until the peer has finished. Standard input is read by a thread that need not end."""
    sending = asyncio.create_task(_send(stream, _standard_input()), name="standard input")
    try:
        while data := await stream.read():
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    finally:
        sending.cancel()


async def _send(stream: TlsStream, chunks: asyncio.Queue[bytes]) -> None:
    while data := await chunks.get():
        await stream.write(data)
    await stream.finish()


def _standard_input() -> asyncio.Queue[bytes]:
    """Chunks of standard input, b"" at its end; not read faster than they are sent."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(_AHEAD)

    def read() -> None:
        data = b"more"
        with contextlib.suppress(OSError, RuntimeError, concurrent.futures.CancelledError):
            while data:
                data = os.read(0, _CHUNK)
                asyncio.run_coroutine_threadsafe(chunks.put(data), loop).result()

    threading.Thread(target=read, daemon=True, name="standard input").start()
    return chunks
