"""The command `parma`: one group, to which each package adds its own through entry points, loaded when asked for."""

from __future__ import annotations

import sys
from importlib import metadata

import click

from parma_api.status import ApiError

ENTRY_POINTS = "parma.commands"
BAD_INPUT = 2


class LazyGroup(click.Group):
    """Knows its commands by name and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all installed command groups."""
        return sorted(point.name for point in metadata.entry_points(group=ENTRY_POINTS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        for point in metadata.entry_points(group=ENTRY_POINTS, name=cmd_name):
            loaded = point.load()
            return loaded if isinstance(loaded, click.Command) else None
        return None


@click.group(cls=LazyGroup)
@click.version_option(package_name="parma")
def parma() -> None:
    """Confidential container groups: policies, operators' commands, attestation.

    Example: parma policy digest policy.rego
    """


def main() -> None:
    """Runs the command; an ApiError becomes one line on standard error and exit status 2."""
    try:
        parma()
    except ApiError as error:
        click.echo(f"error: {error.message.splitlines()[0]}", err=True)
        sys.exit(BAD_INPUT)
