"""`parma attack`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parma_api.status import InvalidArgumentError

if TYPE_CHECKING:
    from parma_shim.attack.play import Row
    from parma_shim.attack.registry import Attack

_HANDLER = "parma"
_MAX_POLICY = 2 << 20


@click.command()
@click.option("--list", "only_list", is_flag=True, help="Say what there is, and play nothing.")
@click.option("--id", "names", multiple=True, metavar="ID", help="Play this one; may be repeated.")
@click.option(
    "--policy",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The policy that the tenant wants, for attacks before it is in force (K6).",
)
@click.option("--handler", default=_HANDLER, show_default=True, help="containerd's handler.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in each line.")
def attack(
    *, only_list: bool, names: tuple[str, ...], policy: Path | None, handler: str, as_json: bool
) -> None:
    """Play a malicious host against real groups in real utility VMs, and say of each attack what came of it.

    Exit 0 only if every attack came to what it must come to: denied, detected, refused, or without effect.

    Example: parma attack --id F3a --id K6 --json
    """
    if handler != _HANDLER:
        raise InvalidArgumentError(
            f"--handler {handler}: attacks speak the agent's protocol, which only the groups of {_HANDLER!r} have"
        )
    if only_list:
        _list(as_json=as_json)
        return
    from parma_shim.attack.registry import Stage

    chosen = _chosen(names)
    if policy is not None and any(one.stage is not Stage.FRESH for one in chosen):
        raise InvalidArgumentError(
            "--policy is for attacks before a policy is in force: give --id K6 with it"
        )
    text = policy.read_bytes() if policy is not None else None
    if text is not None and not 0 < len(text) <= _MAX_POLICY:
        raise InvalidArgumentError(f"{policy} is empty or has more than {_MAX_POLICY} bytes")
    sys.exit(_play(chosen, text, as_json=as_json))


def _chosen(names: tuple[str, ...]) -> list[Attack]:
    """In the order in which they can be played."""
    from parma_shim.attack.registry import catalogue
    from parma_shim.attack.unplayable import UNPLAYABLE

    known = catalogue()
    for name in names:
        if name in UNPLAYABLE:
            raise InvalidArgumentError(f"{name} is not played from here: {UNPLAYABLE[name].reason}")
        if name not in known:
            raise InvalidArgumentError(f"there is no attack {name}: see parma attack --list")
    return [one for one in known.values() if not names or one.id in names]


def _list(*, as_json: bool) -> None:
    from parma_shim.attack.unplayable import entries

    for entry in entries():
        if as_json:
            click.echo(json.dumps(entry))
        else:
            note = f"   (not played from here: {entry['reason']})" if entry["reason"] else ""
            click.echo(f"{entry['id']:4} {entry['must']:9}  {entry['title']}{note}")


def _play(chosen: list[Attack], policy: bytes | None, *, as_json: bool) -> int:
    import asyncio
    import logging
    import os
    import signal

    from parma_shim.attack.lab import Lab
    from parma_shim.attack.play import play
    from parma_shim.config import load_config

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    config = load_config(os.environ)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # VMs and files go in either case

    async def run() -> bool:
        good = True
        async with Lab(config, dict(os.environ), policy) as lab:
            async for row in play(lab, chosen):
                _show(row, as_json=as_json)
                good = good and row.ok
        return good

    return 0 if asyncio.run(run()) else 1


def _show(row: Row, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(row.as_json()))
        sys.stdout.flush()
        return
    verdict = row.attack.must.value if row.ok else "FAILED"
    click.echo(f"{row.attack.id:4} {verdict:9}  {row.attack.title}")
    click.echo(f"     {'':9}  -> {row.observed}")
