"""`parma attack`: what it lists, and what it says to bad usage. Playing is in test_in_vm.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parma_api.cli import run
from parma_shim.attack.outcome import AttackError, Observation
from parma_shim.attack.play import Row, play_one
from parma_shim.attack.registry import Attack, Must, Stage
from parma_shim.cli import attack as command

KEYS = ["id", "title", "must", "observed", "reason_codes", "ok"]


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attack", "--list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["must"] for row in rows} == {"denied", "detected", "refuses", "no effect"}
    assert {row["id"]: bool(row["reason"]) for row in rows}["F8"] is True
    assert run(["attack", "--list"]) == 0
    assert "not played from here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--id", "X1"], "no attack X1"),
        (["--id", "F8"], "SEV-SNP hardware"),
        (["--id", "F3a", "--policy", "P"], "before a policy is in force"),
        (["--id", "K6", "--policy", "EMPTY"], "is empty"),
        (["--id", "K6", "--policy", "MISSING"], "does not exist"),
        (["--handler", "runc"], "--handler runc"),
    ],
)
def test_bad_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "P").write_text("package policy\n")
    (tmp_path / "EMPTY").touch()
    words = [
        str(tmp_path / word) if word in ("P", "EMPTY", "MISSING") else word for word in arguments
    ]
    assert run(["attack", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert says in lines[0]


async def outcome(fails: Exception | None) -> Row:
    async def play(_: object) -> Observation:
        if fails is not None:
            raise fails
        return Observation("refused", ("a.b",))

    one = Attack("F0", "a title", Must.DENIED, Stage.READY, play)
    return await play_one(None, one)  # type: ignore[arg-type]


async def test_rows() -> None:
    row = (await outcome(None)).as_json()
    assert list(row) == KEYS
    assert row["ok"] is True
    assert row["reason_codes"] == ["a.b"]
    for error in (AttackError("the host got through"), OSError(5, "no disk"), TimeoutError()):
        assert (await outcome(error)).ok is False


@pytest.mark.parametrize("as_json", [True, False])
async def test_printed(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    row = await outcome(AttackError("the host got\nthrough"))
    command._show(row, as_json=as_json)
    printed = capsys.readouterr().out
    if as_json:
        assert list(json.loads(printed)) == KEYS
    else:
        assert "FAILED" in printed
        assert len(printed.splitlines()) == 2
