"""The catalogue: one module for each topic."""

from __future__ import annotations

import importlib

TOPICS = ("launch", "disks", "roots", "spec", "processes", "content", "channel")


def load() -> None:
    """Imports all topics; each puts its attacks into the registry."""
    for topic in TOPICS:
        importlib.import_module(f"{__name__}.{topic}")
