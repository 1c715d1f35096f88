"""`parma install`."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from pathlib import Path

import click

from parma_api.status import ApiError


@click.command()
@click.option(
    "--containerd-config",
    type=click.Path(path_type=Path),
    default=Path("/etc/containerd/config.toml"),
    show_default=True,
    help="The file to write the handler into.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def install(*, containerd_config: Path, dry_run: bool) -> None:
    """Write the handler `parma` into containerd's configuration, and print the RuntimeClass.

    The rest of the file stays as it is, the built-in runc entry too; the old file is kept beside the new one. Doing it
    twice changes nothing.

    Example: parma install --dry-run
    """
    from parma_shim.doctor.containerd_config import RUNTIME_CLASS, plan

    try:
        old = containerd_config.read_text() if containerd_config.exists() else ""
        result = plan(old, _config_version())
        if dry_run:
            shown = difflib.unified_diff(
                old.splitlines(keepends=True), result.text.splitlines(keepends=True), "now", "then"
            )
            click.echo("".join(shown), nl=False)
        elif result.changes:
            backup = _write(containerd_config, result.text)
            click.echo(f"written: {', '.join(result.changes)} into {containerd_config}", err=True)
            if backup is not None:
                click.echo(f"the old file is {backup}", err=True)
            click.echo("restart containerd to use it: systemctl restart containerd", err=True)
        else:
            click.echo(f"{containerd_config} is complete", err=True)
    except ApiError as error:
        click.echo(f"error: {containerd_config}: {error.message}", err=True)
        sys.exit(2)
    except (OSError, UnicodeDecodeError) as error:
        click.echo(f"error: {containerd_config} cannot be read or written: {error}", err=True)
        sys.exit(2)
    click.echo(RUNTIME_CLASS, nl=False)


def _config_version() -> int:
    """What a new file should be: containerd 2 reads version 3, before that 2 is the newest."""
    from parma_shim.doctor.result import output_of

    shown = (output_of(["containerd", "--version"]) or "").split()
    return 3 if any(word.removeprefix("v").startswith("2.") for word in shown) else 2


def _write(path: Path, text: str) -> Path | None:
    """Replaces the file in one step; result: where the old one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    backup = _backup(path) if path.exists() else None
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".parma-", delete=False) as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    Path(new.name).chmod(mode)
    Path(new.name).replace(path)
    return backup


def _backup(path: Path) -> Path:
    """A hard link under the first free name; the replacement leaves it alone."""
    number = 0
    while True:
        backup = path.with_name(f"{path.name}.before-parma" + (f".{number}" if number else ""))
        try:
            backup.hardlink_to(path)
        except FileExistsError:
            number += 1
        else:
            return backup
