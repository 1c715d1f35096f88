"""The cluster from the command line."""

from __future__ import annotations

import argparse
import sys

from parma_shim.demo.narrator import Narrator

from . import demo, installation, kind
from .home import ClusterError, Home

_COMMANDS = {
    "up": "build what is missing, start the cluster, install Parma",
    "down": "delete the cluster",
    "demo": "the story of `make kind`; with --keep the cluster runs on",
}


def main() -> int:
    """0 done, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.cluster", description=__doc__)
    choices = parser.add_subparsers(dest="command", required=True)
    for name, text in _COMMANDS.items():
        choices.add_parser(name, help=text)
    choices.choices["demo"].add_argument("--keep", action="store_true", help="leave the cluster")
    arguments = parser.parse_args()
    home = Home.default()
    try:
        _act(home, arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _act(home: Home, arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "up":
            cluster = kind.up(home)
            installation.install(cluster, *installation.node_image())
            print(f"export KUBECONFIG={home.kubeconfig} DOCKER_HOST=unix://{home.docker_socket}")
        case "demo":
            narrator = Narrator()
            demo.play(narrator, home, keep=arguments.keep)
            if not arguments.keep:
                narrator.end("all as it should be")
        case _:
            kind.down(home)


sys.exit(main())
