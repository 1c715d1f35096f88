"""docs/conformance-shim.md names tests that exist, for each item of the list."""

from __future__ import annotations

import re
from pathlib import Path

_FILE = re.compile(r"`(tests/[\w/]+\.py)`: ((?:`test_\w+`(?:, )?)+)")


def test_every_named_test_exists(repository: Path) -> None:
    page = (repository / "docs/conformance-shim.md").read_text()
    named = [
        (file, name) for file, names in _FILE.findall(page) for name in re.findall(r"\w+", names)
    ]
    assert len(named) > 60
    missing = [
        (file, name)
        for file, name in named
        if not re.search(rf"^(async )?def {name}\(", (repository / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_item_has_a_row(repository: Path) -> None:
    page = (repository / "docs/conformance-shim.md").read_text()
    items = [
        int(n)
        for cell in re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE)
        for n in cell.split(",")
    ]
    assert items == list(range(1, 43))
