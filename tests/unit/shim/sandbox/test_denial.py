"""A refusal as the user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parma_api.policy.refusal import decision_text
from parma_api.status import Code, RemoteError
from parma_shim.errors import DeniedError
from parma_shim.sandbox.denial import MAX_LINES, MAX_RECORDS, Denials, three_lines

REASON = {
    "errors": ["no container has this command"],
    "error_objects": [
        {
            "container": "web",
            "differs": [{"check": "process.command", "expected": ["a"], "got": ["b"]}],
            "variables": ["EVIL=<<redacted>>"],
        }
    ],
}


def denied(**more: object) -> RemoteError:
    text = decision_text(
        "create_container",
        ("process.command",),
        {"argList": ["b"], "envList": ["S=1"]},
        REASON,
        None,
    )
    return RemoteError(Code.PERMISSION_DENIED, text)


def test_three_lines_and_a_record(tmp_path: Path) -> None:
    error = Denials(tmp_path / "denials", "pod").explained(denied())
    assert isinstance(error, DeniedError)
    assert error.code is Code.PERMISSION_DENIED
    first, second, third = error.message.split("\n")
    assert first == "create_container denied by policy: process.command"
    assert second == (
        'nearest: web; process.command: expected ["a"], got ["b"]; variables not allowed: EVIL=<<redacted>>'
    )
    record = Path(third.removeprefix("explain: parma policy explain "))
    found = json.loads(record.read_text())
    assert found["sandbox"] == "pod"
    assert found["decision"]["input"]["envList"] == ["S=<<redacted>>"]
    assert found["id"] == record.stem
    assert record.stat().st_mode & 0o777 == 0o600


def test_other_errors_stay(tmp_path: Path) -> None:
    error = RemoteError(Code.NOT_FOUND, "policyDecision< x >policyDecision")
    assert Denials(tmp_path, "pod").explained(error) is error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = Denials(tmp_path / "file", "pod").explained(denied())
    assert isinstance(error, DeniedError)
    assert "explain" not in error.message


def test_old_records_go(tmp_path: Path) -> None:
    for number in range(MAX_RECORDS + 5):
        (tmp_path / f"0-{number:04}.json").touch()
    Denials(tmp_path, "pod").explained(denied())
    assert len(list(tmp_path.iterdir())) == MAX_RECORDS


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"reason_codes": ["c" * 5000], "input": {"rule": "r" * 5000}},
        {"reason_codes": 7, "reason": ["x"], "input": []},
        {"reason": {"error_objects": [{"container": "c" * 5000, "differs": [{}, 7, None]}]}},
        {"reason": {"error_objects": [{"differs": "x"}]}},
        {"reason": "\x1b[31m\n\n\n\n"},
        {"policyError": "p" * 5000},
    ],
)
def test_hostile_records_stay_small(decision: dict[str, object]) -> None:
    text = three_lines(
        "create_container denied by policy: x", decision, "/run/parma/denials/x.json"
    )
    assert len(text) <= MAX_LINES
    assert text.count("\n") <= 2
    assert text.replace("\n", "").isprintable()
    assert text.endswith("explain: parma policy explain /run/parma/denials/x.json")
