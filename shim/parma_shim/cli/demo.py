"""`parma demo`."""

from __future__ import annotations

import sys

import click


@click.command()
def demo() -> None:
    """Show the main job: a group under its policy in a real VM, and six attacks on it.

    Starts a private containerd in a folder of its own and removes everything again.

    Example: parma demo
    """
    from parma_shim.demo.story import main

    sys.exit(main())
