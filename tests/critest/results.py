"""Outcomes on disk, written after every spec, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .suite import Outcome, State

HANDLERS = ("runc", "parma")


@dataclass(frozen=True, slots=True)
class Column:
    """One runtime under one containerd."""

    version: str
    handler: str


class Results:
    """All outcomes of one run, by column and spec."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start_anew(self) -> None:
        """Forgets everything."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def finished(self) -> bool:
        """The run that is on disk came to its end."""
        return (self._folder / "finished").exists()

    def finish(self) -> None:
        """Marks the run as one that the next does not go on with."""
        (self._folder / "finished").touch()

    def resume(self) -> None:
        """Takes the mark away."""
        (self._folder / "finished").unlink(missing_ok=True)

    def load(self, column: Column) -> dict[str, Outcome]:
        """Outcomes by spec; empty for a column that was not begun."""
        path = self._path(column)
        if not path.exists():
            return {}
        rows = json.loads(path.read_text())["outcomes"]
        found = (Outcome(**{**row, "state": State(row["state"])}) for row in rows)
        return {outcome.spec: outcome for outcome in found}

    def server(self, column: Column) -> str:
        """The version that the daemon gave; empty for a column that was not begun."""
        path = self._path(column)
        return str(json.loads(path.read_text())["server"]) if path.exists() else ""

    def store(self, column: Column, server: str, outcomes: Iterable[Outcome]) -> None:
        """Replaces the column."""
        path = self._path(column)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        rows = [asdict(outcome) for outcome in outcomes]
        part.write_text(json.dumps({"server": server, "outcomes": rows}, indent=1))
        part.replace(path)

    def _path(self, column: Column) -> Path:
        return self._folder / f"{column.version}-{column.handler}.json"
