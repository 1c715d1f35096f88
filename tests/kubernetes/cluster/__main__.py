"""The cluster from the command line."""

from __future__ import annotations

import argparse
import sys

from . import kind
from .home import ClusterError, Home


def main() -> int:
    """0 done, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.cluster", description=__doc__)
    commands = {"up": "build what is missing and start the cluster", "down": "delete the cluster"}
    choices = parser.add_subparsers(dest="command", required=True)
    for name, text in commands.items():
        choices.add_parser(name, help=text)
    arguments = parser.parse_args()
    home = Home.default()
    try:
        if arguments.command == "up":
            kind.up(home)
            print(f"export KUBECONFIG={home.kubeconfig} DOCKER_HOST=unix://{home.docker_socket}")
        else:
            kind.down(home)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
