"""`parma policy`: the tenant's commands around one policy text.

What is listed in `_LATER` is imported when it is called, so that `digest` does not pay for `generate`.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from parma_api.policy.opa import OpaLoader

_T = TypeVar("_T")
_LATER: Final[dict[str, str]] = {
    "diff": "parma_tenant.cli.analysis:diff_command",
    "explain": "parma_tenant.cli.analysis:explain_command",
    "generate": "parma_tenant.cli.generate:generate_command",
    "lint": "parma_tenant.cli.lint:lint_command",
    "simulate": "parma_tenant.cli.simulate:simulate_command",
}
"""Command name to `module:attribute`; a command of another module is added here."""
FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
opa_option = click.option("--opa", type=FILE, help="The OPA binary [default: the installed one].")
bundles_option = click.option(
    "--bundles", type=_FOLDER, help="The framework's folder [default: the installed one]."
)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_LATER})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _LATER:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _LATER[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup)
def policy() -> None:
    """Write, check and explain execution policies.

    Example: parma policy digest policy.rego
    """


@policy.command()
@click.argument("text", type=FILE)
@json_option
def digest(text: Path, *, as_json: bool) -> None:
    """Print HOST_DATA of a policy: SHA-256 over its exact bytes.

    Example: parma policy digest policy.rego
    """
    found = hashlib.sha256(read(text)).hexdigest()
    click.echo(json.dumps({"host_data": found}) if as_json else found)


def with_loader(
    opa: Path | None, bundles: Path | None, work: Callable[[OpaLoader], Awaitable[_T]]
) -> _T:
    from parma_api.policy.opa import OpaLoader
    from parma_api.policy.sidecar import find_opa

    try:
        binary, folder = opa or find_opa(), bundles or find_bundles()
    except FileNotFoundError as error:
        fail(str(error))

    async def main(run_dir: Path) -> _T:
        return await work(OpaLoader(binary, folder, run_dir))

    with tempfile.TemporaryDirectory(prefix="parma") as run_dir:
        return asyncio.run(main(Path(run_dir)))


def find_bundles() -> Path:
    """$PARMA_BUNDLES, else the installed framework, else this checkout's. Raises FileNotFoundError."""
    named = os.environ.get("PARMA_BUNDLES")
    checkout = Path(__file__).resolve().parents[3] / "policy_bundles"
    candidates = [Path(named)] if named else [Path("/usr/share/parma/policy_bundles"), checkout]
    for candidate in candidates:
        if (candidate / "data.json").is_file():
            return candidate
    raise FileNotFoundError(
        "the policy framework is not installed: give its folder with --bundles or PARMA_BUNDLES"
    )


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")


def fail(message: str) -> NoReturn:
    click.echo(f"parma policy: {message}", err=True)
    sys.exit(2)
