"""Why a spec's outcome differs between the runtimes, or fails with both: written by hand, read from reasons.toml."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("reasons.toml")


@dataclass(frozen=True, slots=True)
class Reason:
    """For the specs whose name matches, under these versions (all when empty)."""

    specs: re.Pattern[str]
    versions: frozenset[str]
    text: str


def load(path: Path = FILE) -> tuple[Reason, ...]:
    """Raises ValueError for an entry that has not exactly the known keys."""
    rows = tomllib.loads(path.read_text()).get("reason", [])
    return tuple(_reason(row) for row in rows)


def _reason(row: dict[str, object]) -> Reason:
    if not {"specs", "text"} <= set(row) <= {"specs", "text", "versions"}:
        raise ValueError(f"reasons.toml: keys are specs, text and perhaps versions: {row}")
    versions = row.get("versions", [])
    assert isinstance(versions, list)
    return Reason(re.compile(str(row["specs"])), frozenset(versions), str(row["text"]))


def find(reasons: tuple[Reason, ...], spec: str, version: str) -> str:
    """The first reason that fits; empty when none does."""
    for reason in reasons:
        if reason.specs.search(spec) and (not reason.versions or version in reason.versions):
            return reason.text
    return ""
