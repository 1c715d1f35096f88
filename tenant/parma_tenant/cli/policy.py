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
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from parma_api.policy.opa import OpaLoader
    from parma_tenant.simulate import StepResult

_T = TypeVar("_T")
_LATER: Final[dict[str, str]] = {
    "generate": "parma_tenant.cli.generate:generate_command",
}
"""Command name to `module:attribute`; a command of another module is added here."""
_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_opa = click.option("--opa", type=_FILE, help="The OPA binary [default: the installed one].")
_bundles = click.option(
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
@click.argument("text", type=_FILE)
@_json
def digest(text: Path, *, as_json: bool) -> None:
    """Print HOST_DATA of a policy: SHA-256 over its exact bytes.

    Example: parma policy digest policy.rego
    """
    found = hashlib.sha256(_read(text)).hexdigest()
    click.echo(json.dumps({"host_data": found}) if as_json else found)


@policy.command()
@click.option("--policy", "text", type=_FILE, required=True, help="The policy text.")
@click.option("--steps", type=_FILE, required=True, help="A step file (JSON).")
@_json
@_opa
@_bundles
def simulate(
    text: Path, steps: Path, *, as_json: bool, opa: Path | None, bundles: Path | None
) -> None:
    """Play requests through the agent's own gate and OPA, and print each verdict.

    Exit 0 if the steps were played, whatever their verdicts; 1 if the policy is refused when set; 2 for bad input.

    Example: parma policy simulate --policy policy.rego --steps steps.json --json
    """
    results = _played(text, steps, opa, bundles)
    for result in results:
        click.echo(json.dumps(result.to_json(), sort_keys=True) if as_json else _line(result))
    sys.exit(1 if results and not results[0].step else 0)


@policy.command()
@click.argument("text", type=_FILE)
@_json
@_opa
@_bundles
def lint(text: Path, *, as_json: bool, opa: Path | None, bundles: Path | None) -> None:
    """Load a policy as the agent does, and name rules that are wider than they look.

    Exit 0 without findings, 1 with some, 2 for bad input.

    Example: parma policy lint policy.rego
    """
    from parma_tenant.lint import lint_policy

    content = _read(text)
    findings = _with_loader(opa, bundles, lambda loader: lint_policy(loader, content))
    if as_json:
        click.echo(json.dumps([finding.to_json() for finding in findings]))
    else:
        for finding in findings:
            click.echo(f"{finding.level}: {finding.where}: {finding.text}")
    sys.exit(1 if findings else 0)


def _played(
    text: Path, steps: Path, opa: Path | None, bundles: Path | None
) -> Sequence[StepResult]:
    from parma_api.status import ApiError
    from parma_tenant.simulate import parse_script, simulate

    content = _read(text)
    try:
        script = parse_script(json.loads(_read(steps)), steps.parent)
        return _with_loader(opa, bundles, lambda loader: simulate(lambda: loader, content, script))
    except (ValueError, RecursionError) as error:
        _fail(f"{steps} is no JSON: {error}")
    except ApiError as error:
        _fail(error.message)


def _with_loader(
    opa: Path | None, bundles: Path | None, work: Callable[[OpaLoader], Awaitable[_T]]
) -> _T:
    from parma_api.policy.opa import OpaLoader
    from parma_api.policy.sidecar import find_opa

    try:
        binary, folder = opa or find_opa(), bundles or find_bundles()
    except FileNotFoundError as error:
        _fail(str(error))

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


def _line(result: StepResult) -> str:
    verdict = "allowed" if result.allowed else f"denied: {', '.join(result.reason_codes)}"
    return f"{result.step:3} {result.point}: {verdict}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _fail(f"{path} cannot be read: {error.strerror}")


def _fail(message: str) -> NoReturn:
    click.echo(f"parma policy: {message}", err=True)
    sys.exit(2)
