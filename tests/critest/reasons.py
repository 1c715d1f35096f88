"""Why a spec's outcome differs between the runtimes, or fails with both: written by hand, read from reasons.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("reasons.toml")


@dataclass(frozen=True, slots=True)
class Reason:
    """For the specs whose name matches, when everything that did not pass says `message`, under these versions (all
    when empty). So a spec that begins to fail for another cause is unexplained again."""

    specs: re.Pattern[str]
    message: re.Pattern[str]
    versions: frozenset[str]
    text: str


def load(path: Path = FILE) -> tuple[Reason, ...]:
    """Raises ValueError for an entry that has not exactly the known keys."""
    rows = tomllib.loads(path.read_text()).get("reason", [])
    return tuple(_reason(row) for row in rows)


def _reason(row: dict[str, object]) -> Reason:
    needed = {"specs", "message", "text"}
    if not needed <= set(row) <= needed | {"versions"}:
        raise ValueError(f"reasons.toml: keys are specs, message, text, perhaps versions: {row}")
    versions = row.get("versions", [])
    assert isinstance(versions, list)
    specs, message = re.compile(str(row["specs"])), re.compile(str(row["message"]))
    return Reason(specs, message, frozenset(versions), str(row["text"]))


def find(
    reasons: tuple[Reason, ...], spec: str, version: str, messages: Iterable[str]
) -> Reason | None:
    """The first reason that fits; `messages` are those of the outcomes that are no pass."""
    told = tuple(messages)
    for reason in reasons:
        here = not reason.versions or version in reason.versions
        if here and reason.specs.search(spec) and all(map(reason.message.search, told)):
            return reason
    return None
