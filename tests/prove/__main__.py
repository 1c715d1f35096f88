"""Explores as deep as the time allows and tells what it met: `python -m tests.prove [--depth N] [--seconds N]`."""

from __future__ import annotations

import argparse
import sys

from tests.prove.explore import explore_in_parallel


def main() -> int:
    """0: the invariant held everywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600.0)
    chosen = parser.parse_args()
    outcome = explore_in_parallel(chosen.depth, chosen.seconds)
    print(outcome.text())
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
