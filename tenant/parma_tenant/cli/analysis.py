"""`parma policy explain`, `diff`, `lint` and `simulate --pod`: what a policy says, before or after the fact."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

import click

from parma_api.status import ApiError
from parma_tenant.cli.options import FILE
from parma_tenant.denial import read_denial
from parma_tenant.diff import diff_policies
from parma_tenant.explain import explain, lines
from parma_tenant.generate.run import read_file

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("explain")
@click.argument("denial", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--policy", "policy_file", type=FILE, help="The policy's text: gives the line to look at."
)
@_json
def explain_command(denial: Path, *, policy_file: Path | None, as_json: bool) -> None:
    """Say why a request was denied: the nearest container, what differs, and the line of the policy.

    DENIAL is the record that the error names, a file with the event, log line or error text, or - for standard input.

    Example: kubectl describe pod web | parma policy explain - --policy policy.rego
    """
    try:
        found = read_denial(_text(denial), Path.cwd())
        explanation = explain(found, None if policy_file is None else _text(policy_file))
    except ApiError as error:
        _fail(error.message)
    if as_json:
        click.echo(json.dumps(explanation.to_json()))
    else:
        for line in lines(explanation, None if policy_file is None else policy_file.name):
            click.echo(line)


@click.command("diff")
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@_json
def diff_command(first: Path, second: Path, *, as_json: bool) -> None:
    """Say what one policy allows that another does not: - only the first, + only the second.

    Exit 0 if they allow the same, 1 if not, 2 for bad input.

    Example: parma policy diff deployed.rego new.rego
    """
    try:
        changes = diff_policies(_text(first), _text(second))
    except ApiError as error:
        _fail(error.message)
    if as_json:
        click.echo(json.dumps([change.to_json() for change in changes]))
    else:
        for change in changes:
            click.echo(str(change))
    sys.exit(1 if changes else 0)


def _text(path: Path) -> str:
    """Raises SourceError."""
    from parma_tenant.source.errors import SourceError

    try:
        return read_file(path).decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8: {error.reason}") from error


def _fail(message: str) -> NoReturn:
    click.echo(f"parma policy: {message.splitlines()[0]}", err=True)
    sys.exit(2)
