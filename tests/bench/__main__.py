"""Prints one table and writes bench.json. A limit that is not held is marked and makes the exit status 1.

python -m tests.bench [NAME ...]     all modules, or those named, such as `shim` or `pod`
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.row import Limit, Row, Rows

MODULES: Final = (
    *("shim", "layer", "stdio", "policy", "agent", "verify"),
    *("guest", "pod", "workload", "kubernetes"),
)
"""Those without a VM first."""
OUTPUT: Final = Path("bench.json")
_HEAD: Final = ("figure", "value", "unit", "baseline", "value", "ratio", "95 %", "n", "limit")


def _parsed(found: Mapping[str, Any]) -> Row:
    """A row that a module gives as bench.json has it."""
    numbers = {name: found[name] for name in ("value", "ratio", "low", "high", "n")}
    baseline = found["baseline"]
    return Row(
        name=found["name"],
        unit=found["unit"],
        baseline=baseline["name"],
        baseline_value=baseline["value"],
        limit=Limit(**found["limit"]) if "limit" in found else None,
        **numbers,
    )


def _cells(row: Row) -> tuple[str, ...]:
    limit = "" if row.limit is None else f"{row.limit} {'held' if row.holds else 'NOT HELD'}"
    return (
        row.name,
        f"{row.value:.3f}",
        row.unit,
        row.baseline,
        f"{row.baseline_value:.3f}",
        f"{row.ratio:.3f}",
        f"{row.low:.2f}..{row.high:.2f}",
        str(row.n),
        limit,
    )


def table(rows: Rows) -> str:
    """All rows in columns."""
    lines = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 2, 3, 8) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _measured(names: Sequence[str]) -> tuple[Rows, list[str]]:
    """Rows of the modules, and what went wrong; one that fails takes no other with it."""
    rows: Rows = []
    failures: list[str] = []
    for name in names:
        begin = time.monotonic()
        sys.stderr.write(f"bench: {name} ...")
        sys.stderr.flush()
        try:
            found = importlib.import_module(f"tests.bench.bench_{name}").run()
            rows += [row if isinstance(row, Row) else _parsed(row) for row in found]
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
        sys.stderr.write(f" {time.monotonic() - begin:.0f} s\n")
    return rows, failures


def main(words: Sequence[str]) -> int:
    """0: every figure was taken and every limit held."""
    if unknown := set(words) - set(MODULES):
        sys.stderr.write(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(MODULES)}\n")
        return 2
    rows, failures = _measured(words or MODULES)
    print(table(rows))
    OUTPUT.write_text(json.dumps([row.document() for row in rows], indent=1) + "\n")
    broken = [row.name for row in rows if not row.holds]
    for line in failures:
        print(f"NOT MEASURED: {line}")
    print(f"limits not held: {', '.join(broken)}" if broken else "all limits are held")
    return 1 if broken or failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
