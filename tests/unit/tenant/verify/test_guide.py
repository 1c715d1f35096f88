"""The attestation guide: its examples run, its checks are all of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from parma_api.cli import run
from parma_tenant.verify.checks import NAMES, REQUIRED, TRANSCRIPT_NAMES


@pytest.fixture(scope="module")
def guide(repository: Path) -> str:
    return (repository / "docs/attestation-guide.md").read_text()


def test_the_examples_run(guide: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", guide, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 2
    for line in lines:
        program, *words = shlex.split(line)
        assert (program, run(words)) == ("parma", 0)


def test_every_check_has_its_row(guide: str) -> None:
    table = guide[guide.index("| check | holds when |") : guide.index("Exit status:")]
    named: dict[str, bool] = {}
    for row in table.strip().splitlines()[2:]:
        names = re.findall(r"`([a-z_.]+)`", row.split("|")[1])
        group = names[0].split(".")[0]
        for name in names:
            full = name if name == names[0] else f"{group}.{name}"
            named[full] = "●" in row
    assert set(named) == set(NAMES)
    assert {name for name, required in named.items() if required} == REQUIRED
    assert all(f"`{name}`" in guide for name in TRANSCRIPT_NAMES)
