"""docs/conformance.md from the outcomes: one row for each spec, the numbers above, the reasons beside."""

from __future__ import annotations

import subprocess
from collections import Counter
from dataclasses import dataclass

from . import programs
from .daemon import VERSIONS
from .reasons import Reason, find
from .results import HANDLERS, Column, Results
from .suite import Outcome, State

FILE = programs.ROOT / "docs" / "conformance.md"
UNEXPLAINED = "**not explained**"
COLUMNS = tuple(Column(version.name, handler) for version in VERSIONS for handler in HANDLERS)
_TOP = """\
# Conformance: critest with handler `parma`, and with runc beside it

Written by `make critest`; edit `tests/critest/reasons.toml`, not this file. The suite is critest {critest} of the
Kubernetes project, built from its Go module and run as it is, spec by spec, all {count} of them (the benchmarks are
left out), under the containerds of Debian 12, 13 and the suite after it. Each containerd has its own shim for runc;
runc itself is the machine's ({runc}) everywhere.

The images are our own, under the names that the suite asks for, and are pulled from a registry on loopback that
containerd takes for `registry.k8s.io` and `gcr.io`. The private daemon's shims have two lines in their configuration
that no host has unless its operator writes them:

* `default_policy`, since critest cannot annotate its pods: `policy_bundles/samples/allow_all.rego`. HOST_DATA is its
  digest, so a relying party sees what it is.
* `host_paths = "copy"`, since the volumes of its specs are hostPaths, which are refused otherwise.
"""


@dataclass(frozen=True, slots=True)
class Written:
    """What the document says, for the terminal."""

    lines: tuple[str, ...]
    complete: bool
    unexplained: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    spec: str
    cells: tuple[str, ...]
    reasons: tuple[Reason | None, ...]
    """None: a difference without one."""

    @property
    def text(self) -> str:
        """Each reason once."""
        texts = [reason.text if reason else UNEXPLAINED for reason in self.reasons]
        return "; ".join(dict.fromkeys(texts))


def write(results: Results, specs: tuple[str, ...], reasons: tuple[Reason, ...]) -> Written:
    """Writes the file; columns that were not begun are left out and named."""
    begun = [column for column in COLUMNS if results.load(column)]
    outcomes = {column: results.load(column) for column in begun}
    rows = [_row(spec, outcomes, reasons) for spec in specs]
    numbers = _numbers(results, outcomes)
    text = _TOP.format(critest=programs.version(), count=len(specs), runc=_runc())
    text += "\n## In numbers\n\n" + "\n".join(numbers) + "\n"
    text += "\n## Every spec\n\nA reason stands where the runtimes differ, or where both fail. `(2nd)`: run twice,"
    text += " because the first attempt failed; the second counts.\n\n"
    FILE.write_text(text + "\n".join(_table(results, begun, rows)) + "\n")
    unexplained = tuple(row.spec for row in rows if None in row.reasons)
    complete = len(begun) == len(COLUMNS) and all(len(o) == len(specs) for o in outcomes.values())
    problems = [f"not explained: {spec}" for spec in unexplained]
    used = {reason for row in rows for reason in row.reasons}
    if complete:
        problems += [f"not needed: {r.specs.pattern}" for r in reasons if r not in used]
    else:
        problems.append("not complete: run `make critest` again, it goes on where it was")
    return Written((*numbers, *problems), complete, unexplained)


def _row(
    spec: str, outcomes: dict[Column, dict[str, Outcome]], reasons: tuple[Reason, ...]
) -> _Row:
    found = {column: outcomes[column][spec] for column in outcomes if spec in outcomes[column]}
    wanted: list[Reason | None] = []
    for version in VERSIONS:
        here = [found[column] for column in found if column.version == version.name]
        states = {outcome.state for outcome in here}
        if len(states) > 1 or State.FAIL in states:
            messages = [outcome.message for outcome in here if outcome.state is not State.PASS]
            wanted.append(find(reasons, spec, version.name, messages))
    cells = (_cell(found[column]) if column in found else "" for column in outcomes)
    return _Row(spec, tuple(cells), tuple(wanted))


def _cell(outcome: Outcome) -> str:
    return f"{outcome.state} (2nd)" if outcome.attempts > 1 else outcome.state.value


def _numbers(results: Results, outcomes: dict[Column, dict[str, Outcome]]) -> list[str]:
    lines = ["| containerd | runtime | pass | skip | fail |", "|---|---|---|---|---|"]
    for column, found in outcomes.items():
        count = Counter(outcome.state for outcome in found.values())
        numbers = " | ".join(str(count[state]) for state in State)
        lines.append(f"| {results.server(column)} | {column.handler} | {numbers} |")
    return lines


def _table(results: Results, begun: list[Column], rows: list[_Row]) -> list[str]:
    heads = [f"{results.server(column)} {column.handler}" for column in begun]
    lines = ["| spec | " + " | ".join(heads) + " | reason |", "|---" * (len(heads) + 2) + "|"]
    for row in rows:
        spec = row.spec.removeprefix("[k8s.io] ").replace("|", "\\|")
        lines.append(f"| {spec} | {' | '.join(row.cells)} | {row.text} |")
    return lines


def _runc() -> str:
    done = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].replace("version ", "").partition("+")[0]
