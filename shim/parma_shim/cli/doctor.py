"""`parma doctor`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from parma_api.status import ApiError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.option(
    "--containerd-config",
    type=click.Path(path_type=Path),
    default=Path("/etc/containerd/config.toml"),
    show_default=True,
    help="containerd's configuration.",
)
def doctor(*, as_json: bool, containerd_config: Path) -> None:
    """Say what this host can do, and what to do about each gap.

    Exit 0 if groups can start here, 1 if not.

    Example: parma doctor --json
    """
    from parma_shim.config import load_config
    from parma_shim.doctor.examine import examine
    from parma_shim.doctor.result import Host

    try:
        config = load_config(os.environ)
    except ApiError as error:
        click.echo(f"error: {error.message}", err=True)
        sys.exit(2)
    report = examine(Host(config, dict(os.environ), containerd_config))
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        click.echo("\n".join(report.lines()))
    sys.exit(0 if report.healthy else 1)
