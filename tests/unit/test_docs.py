"""Links in the documents lead somewhere, and nothing names a place that only one machine has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def documents(repository: Path) -> list[Path]:
    found = [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]
    assert len(found) > 8
    return found


def test_links_lead_somewhere(repository: Path) -> None:
    broken = [
        f"{document.name}: {target}"
        for document in documents(repository)
        for target in _LINK.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_make_targets_that_are_named_exist(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for document in documents(repository)
        for target in re.findall(r"`make ([a-z-]+)", document.read_text())
    }
    assert named <= targets


def test_no_file_names_a_place_of_one_machine(repository: Path) -> None:
    places = ("/work/" + "main", "/root/" + ".cache", "/root/" + ".pyenv")
    listed = subprocess.run(
        ["git", "grep", "-lFI", *(word for place in places for word in ("-e", place))],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.stdout == ""
