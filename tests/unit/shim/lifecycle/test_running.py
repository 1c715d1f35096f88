"""Which group an operator means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parma_api.status import ApiError, FailedPreconditionError, InvalidArgumentError, NotFoundError
from parma_shim.lifecycle.running import running_group
from parma_shim.lifecycle.state import GroupState, start_time, write_state


@pytest.fixture
def run(tmp_path: Path) -> Path:
    own = start_time(os.getpid())
    for name, sandbox, started in (
        ("one", "abc1", own),
        ("two", "abc2", own),
        ("whole", "abc", own),
        ("dead", "dead", own + 1),
        ("starting", "", own),
    ):
        (tmp_path / name).mkdir()
        state = GroupState(shim_pid=os.getpid(), shim_start=started, sandbox_id=sandbox)
        write_state(str(tmp_path / name / "state.json"), state)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/state.json").write_text("{")
    return tmp_path


@pytest.mark.parametrize(("named", "found"), [("abc1", "one"), ("abc2", "two"), ("abc", "whole")])
def test_found(run: Path, named: str, found: str) -> None:
    assert running_group(run, named).socket == str(run / found / "s")


@pytest.mark.parametrize(
    ("named", "error", "text"),
    [
        ("ab", FailedPreconditionError, "3 sandboxes begin with ab"),
        ("dead", NotFoundError, "no sandbox dead runs here"),
        ("x", NotFoundError, "no sandbox x runs here"),
        ("", InvalidArgumentError, "1 to 128 characters"),
        ("a" * 129, InvalidArgumentError, "1 to 128 characters"),
    ],
)
def test_refused(run: Path, named: str, error: type[ApiError], text: str) -> None:
    with pytest.raises(error, match=text):
        running_group(run, named)
