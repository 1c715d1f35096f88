"""A check and its finding."""

from __future__ import annotations

import enum
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from parma_shim.config import Config

DEADLINE = 20.0


class Verdict(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Works, with something worth knowing."""
    FAIL = "fail"
    """A group cannot start, or a promise does not hold."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `advice` is empty when there is nothing to do."""

    verdict: Verdict
    summary: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """What the checks look at; tests give another root and environment."""

    config: Config
    environment: Mapping[str, str] = field(default_factory=dict)
    containerd_config: Path = Path("/etc/containerd/config.toml")
    root: Path = Path("/")

    def path(self, name: str) -> Path:
        """`/dev/kvm` and the like, beneath the root looked at."""
        return self.root / name.lstrip("/")


@dataclass(frozen=True, slots=True)
class Check:
    """A name of one word and what to run."""

    name: str
    run: Callable[[Host], Finding]


def ok(summary: str) -> Finding:
    """Nothing to do."""
    return Finding(Verdict.OK, summary)


def note(summary: str, advice: str = "") -> Finding:
    """Works, but."""
    return Finding(Verdict.NOTE, summary, advice)


def fail(summary: str, advice: str) -> Finding:
    """Does not work."""
    return Finding(Verdict.FAIL, summary, advice)


def output_of(command: Sequence[str]) -> str | None:
    """What a program prints; None if it is absent, fails or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
