"""`python -m tests.critest`: the suite with both runtimes under each containerd, and docs/conformance.md.

  --versions 1.6,1.7    some of the containerds          --handlers parma   one of the runtimes
  --again REGEX         run these specs, whatever is there --fresh            forget what an interrupted run left
  --report              write the document from the results that are there

Exit 0: every difference between the runtimes has its reason; 1: one has none, or a column is not complete.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from pathlib import Path

from parma_api.status import ApiError

from . import daemon, document, images, programs, suite
from .reasons import find, load
from .results import HANDLERS, Column, Results


def main() -> int:
    """The exit code."""
    options = _options()
    cache = Path(os.environ.get("PARMA_CACHE") or Path.home() / ".cache" / "parma")
    results = Results(cache / "critest" / "results")
    try:
        program = programs.critest(cache)
        names = suite.specs(program)
        if not options.report:
            _prepare(results, options)
            _run_all(options, cache, results, program, names)
    except (programs.BuildError, suite.SuiteError, ApiError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = document.write(results, names, load())
    print("\n".join(found.lines))
    if found.complete:
        results.finish()
    return 0 if found.complete and not found.unexplained else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--versions", default=",".join(v.name for v in daemon.VERSIONS))
    parser.add_argument("--handlers", default=",".join(HANDLERS))
    parser.add_argument("--again", metavar="REGEX")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--report", action="store_true")
    return parser.parse_args()


def _prepare(results: Results, options: argparse.Namespace) -> None:
    if options.again:
        results.resume()
    elif options.fresh or results.finished:
        results.start_anew()


def _run_all(
    options: argparse.Namespace,
    cache: Path,
    results: Results,
    program: Path,
    names: tuple[str, ...],
) -> None:
    archive = images.ensure(cache)
    for version in daemon.VERSIONS:
        if version.name not in options.versions.split(","):
            continue
        columns = [Column(version.name, handler) for handler in options.handlers.split(",")]
        left = {column: _left(results, column, names, options.again) for column in columns}
        if not any(left.values()):
            continue
        with daemon.running(version, cache, archive) as running:
            for column, chosen in left.items():
                _run_column(results, column, chosen, running, program)


def _left(
    results: Results, column: Column, names: tuple[str, ...], again: str | None
) -> tuple[str, ...]:
    done = results.load(column)
    if again:
        return tuple(name for name in names if re.search(again, name))
    return tuple(name for name in names if name not in done)


def _run_column(
    results: Results,
    column: Column,
    chosen: tuple[str, ...],
    running: daemon.SuiteContainerd,
    program: Path,
) -> None:
    """One process for each spec: an interrupted run loses one, and a failed spec's pods harm no other."""
    server = running.server_version()
    for number, name in enumerate(chosen, 1):
        outcome = _run_spec(column, name, running, program)
        done = results.load(column) | {name: outcome}
        results.store(column, server, done.values())
        where = f"{server} {column.handler} {number}/{len(chosen)}"
        print(f"{where} {outcome.state} {outcome.seconds:.0f} s  {name}", flush=True)
        if outcome.state is suite.State.FAIL:
            print(f"    {outcome.message[:300]}", flush=True)


def _run_spec(
    column: Column, name: str, running: daemon.SuiteContainerd, program: Path
) -> suite.Outcome:
    """A failure without a reason gets a second attempt: on a busy machine a VM may miss a deadline."""
    (outcome,) = suite.run(program, running, column.handler, [name])
    running.sweep()
    explained = find(load(), name, column.version, [outcome.message])
    if outcome.state is not suite.State.FAIL or explained:
        return outcome
    print(f"    once more: {outcome.message[:300]}", flush=True)
    (again,) = suite.run(program, running, column.handler, [name])
    running.sweep()
    return dataclasses.replace(again, attempts=2)


if __name__ == "__main__":
    sys.exit(main())
