"""critest as a program: which specs it has, and what became of the ones that were run. Its own report is read."""

from __future__ import annotations

import enum
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .daemon import SuiteContainerd

SPEC_SECONDS = 600
"""A spec that takes longer is ended and has failed; the suite's own deadlines within one add up to less."""
_MAX_MESSAGE = 600


class State(enum.StrEnum):
    """What became of a spec."""

    PASS = "pass"
    SKIP = "skip"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One spec, run once."""

    spec: str
    state: State
    message: str
    seconds: float
    attempts: int = 1
    """How often it was run in a row; what the last one gave counts, and the document shows the number."""


class SuiteError(Exception):
    """The suite did not run at all, or its report is not what it should be."""


def specs(program: Path) -> tuple[str, ...]:
    """The full names of all specs but the benchmarks, sorted. Raises SuiteError."""
    with tempfile.TemporaryDirectory(prefix="parma-critest-") as folder:
        report = Path(folder) / "r.json"
        command = [str(program), *_quiet(report), "-ginkgo.dry-run"]
        subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=60)
        found = {_name(row) for row in _rows(report) if row["State"] == "passed"}
    if not found:
        raise SuiteError("critest lists no specs")
    return tuple(sorted(found))


def run(
    program: Path, daemon: SuiteContainerd, handler: str, chosen: Sequence[str]
) -> tuple[Outcome, ...]:
    """Runs these specs in one process, in the suite's order. Raises SuiteError."""
    report = daemon.folder / "report.json"
    report.unlink(missing_ok=True)
    endpoint = f"unix://{daemon.socket}"
    command = [
        *daemon.inside(),
        str(program),
        f"-runtime-endpoint={endpoint}",
        f"-runtime-handler={handler}",
        *_quiet(report),
        f"-ginkgo.timeout={SPEC_SECONDS * len(chosen)}s",
        *(f"-ginkgo.focus={_pattern(spec)}" for spec in chosen),
    ]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(daemon.folder / "t")}
    try:
        done = subprocess.run(
            command,
            cwd=daemon.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=(SPEC_SECONDS + 60) * len(chosen),
        )
    except subprocess.TimeoutExpired:
        return tuple(Outcome(spec, State.FAIL, "did not end", SPEC_SECONDS) for spec in chosen)
    return read_report(report, chosen, done.stdout + done.stderr)


def read_report(report: Path, chosen: Iterable[str], output: str) -> tuple[Outcome, ...]:
    """The outcomes of the chosen specs. Raises SuiteError when one of them is missing."""
    rows = {_name(row): row for row in _rows(report, output)}
    missing = [spec for spec in chosen if spec not in rows]
    if missing:
        raise SuiteError(f"critest's report has no {missing[0]!r}: {output[-400:]}")
    return tuple(_outcome(spec, rows[spec]) for spec in chosen)


def _outcome(spec: str, row: dict[str, Any]) -> Outcome:
    message = _first_lines(row.get("Failure", {}).get("Message", ""))
    state = {"passed": State.PASS, "skipped": State.SKIP}.get(row["State"], State.FAIL)
    if state is State.SKIP and not message:
        raise SuiteError(f"{spec!r} was chosen but not run")
    return Outcome(spec, state, message, round(row["RunTime"] / 1e9, 1))


def _rows(report: Path, output: str = "") -> list[dict[str, Any]]:
    try:
        suites = json.loads(report.read_text())
    except (OSError, ValueError) as error:
        raise SuiteError(f"critest wrote no report: {output[-400:]}") from error
    return [row for suite in suites for row in suite["SpecReports"] if row["LeafNodeType"] == "It"]


def _name(row: dict[str, Any]) -> str:
    return " ".join([*(row["ContainerHierarchyTexts"] or ()), row["LeafNodeText"]])


def _quiet(report: Path) -> list[str]:
    return [f"-ginkgo.json-report={report}", "-ginkgo.no-color", "-test.v=false"]


def _pattern(spec: str) -> str:
    """Matches this spec alone, in Go's regular expressions."""
    return re.sub(r"([^\w\s])", r"\\\1", spec) + "$"


def _first_lines(text: str) -> str:
    return " ".join(text.split())[:_MAX_MESSAGE]
