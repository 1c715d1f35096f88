"""`parma policy lint`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from parma_api.status import ApiError
from parma_tenant.cli.policy import (
    FILE,
    bundles_option,
    fail,
    json_option,
    opa_option,
    read,
    with_loader,
)
from parma_tenant.image.hashing import HashCache, default_cache
from parma_tenant.lint import Finding, lint_policy
from parma_tenant.profiles.profile import Profile, load_profile, newest


@click.command("lint")
@click.argument("text", type=FILE)
@click.option(
    "--profile",
    "names",
    multiple=True,
    metavar="NAME[@VERSION]",
    help="A node that it must work on.",
)
@json_option
@opa_option
@bundles_option
def lint_command(
    text: Path, *, names: tuple[str, ...], as_json: bool, opa: Path | None, bundles: Path | None
) -> None:
    """Load a policy as the agent does, and name rules that are wider than they look and node profiles that it lacks.

    Exit 0 without findings (notes are none), 1 with some, 2 for bad input.

    Example: parma policy lint policy.rego --profile eks
    """
    content = read(text)
    try:
        profiles = _profiles(names)
    except ApiError as error:
        fail(error.message)
    facts = HashCache(default_cache()).by_root()
    findings = with_loader(
        opa, bundles, lambda loader: lint_policy(loader, content, profiles, facts)
    )
    findings = [_raised(finding, names) for finding in findings]
    if as_json:
        click.echo(json.dumps([finding.to_json() for finding in findings]))
    else:
        for finding in findings:
            click.echo(f"{finding.level}: {finding.where}: {finding.text}")
    sys.exit(1 if any(finding.level != "note" for finding in findings) else 0)


def _profiles(names: tuple[str, ...]) -> list[Profile]:
    return [load_profile(name) for name in names] if names else newest()


def _raised(finding: Finding, names: tuple[str, ...]) -> Finding:
    """What is missing for a profile that was named is more than a note."""
    return replace(finding, level="warning") if names and finding.level == "note" else finding
