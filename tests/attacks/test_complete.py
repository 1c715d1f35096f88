"""Nothing of the threat model's list is forgotten: each id has a test, and is played or listed with a reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from parma_shim.attack.registry import catalogue
from parma_shim.attack.unplayable import UNPLAYABLE, entries

HERE = Path(__file__).parent
IDS = (HERE / "ids.txt").read_text().split()
_ROW = re.compile(r"^\| ([FMK][0-9]+[a-h]?) ", re.MULTILINE)


def named_tests() -> set[str]:
    """The ids that names of test functions in this folder begin with."""
    found = set()
    for path in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = re.match(r"test_([FMK][0-9]+[a-h]?)_", node.name)
                found |= {name[1]} if name else set()
    return found


def test_every_attack_has_a_test() -> None:
    assert named_tests() == set(IDS)


def test_every_attack_is_played_or_listed_with_the_reason() -> None:
    played, listed = set(catalogue()), set(UNPLAYABLE)
    assert not played & listed
    assert played | listed == set(IDS)
    assert all(one.reason for one in UNPLAYABLE.values())
    assert [entry["id"] for entry in entries()] == sorted(
        IDS, key=lambda name: (name[0], int(re.sub(r"\D", "", name)), name)
    )


def test_the_list_is_the_threat_models(repository: Path) -> None:
    reference = repository.parent / "shared" / "reference" / "attacks.md"
    if not reference.exists():
        pytest.skip("../shared is not here")
    assert _ROW.findall(reference.read_text()) == IDS
