"""The vectors, and verification against roots of the tests' own."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).resolve().parents[3] / "vectors/snp"
SETS = ("milan-v2", "milan-v3", "genoa-v3", "turin-v5")


@pytest.fixture(scope="session")
def vectors() -> Path:
    return VECTORS


@pytest.fixture(scope="session")
def facts() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / "facts.json").read_text())
    return found


@pytest.fixture(scope="session")
def times(facts: dict[str, Any]) -> dict[str, datetime.datetime]:
    return {name: datetime.datetime.fromisoformat(facts[name]["verify_at"]) for name in SETS}
