"""The command `parma`: one group, to which each package adds its own through entry points, loaded when asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import metadata

import click

from parma_api.status import ApiError

ENTRY_POINTS = "parma.commands"
BAD_INPUT = 2
INTERRUPTED = 130


class LazyGroup(click.Group):
    """Knows its commands by name and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all installed command groups."""
        return sorted({point.name for point in metadata.entry_points(group=ENTRY_POINTS)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None. Raises UsageError if its package is not whole."""
        for point in metadata.entry_points(group=ENTRY_POINTS, name=cmd_name):
            try:
                loaded = point.load()
            except (ImportError, AttributeError) as error:
                raise click.UsageError(
                    f"the command {cmd_name!r} is not installed completely ({error}): run `make env`"
                ) from error
            return loaded if isinstance(loaded, click.Command) else None
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`; a command that cannot be loaded does not hide the others."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except click.UsageError as error:
                rows.append((name, f"({error.message})"))
                continue
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=80)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.group(cls=LazyGroup)
@click.version_option(package_name="parma")
def parma() -> None:
    """Confidential container groups: policies, operators' commands, attestation.

    Example: parma policy digest policy.rego
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and exits. What the user did wrong is one line on standard error and exit status 2."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with `arguments`, by default those of the process. Result: the exit status."""
    try:
        status = parma.main(arguments, prog_name="parma", standalone_mode=False)
    except ApiError as error:
        return _fail(error.message)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return BAD_INPUT
    except click.ClickException as error:
        return _fail(error.format_message(), error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads (head, less) has seen enough; the interpreter must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status if isinstance(status, int) else 0


def _fail(message: str, error: click.ClickException | None = None) -> int:
    """One line, with where to read on for bad usage."""
    line = (message.splitlines() or ["unknown"])[0]
    if isinstance(error, click.UsageError) and error.ctx is not None:
        line += f" (see {error.ctx.command_path} --help)"
    click.echo(f"error: {line}", err=True)
    return BAD_INPUT
