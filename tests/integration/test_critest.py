"""A part of critest with handler `parma` under the machine's own containerd; `make critest` runs all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.critest import daemon, images, programs, suite

FOCUS = tuple((Path(suite.__file__).with_name("focus.txt")).read_text().splitlines())
pytestmark = [
    pytest.mark.vm,
    pytest.mark.containerd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(suite.SPEC_SECONDS),
]


@pytest.fixture(scope="module")
def program(cache: Path) -> Path:
    return programs.critest(cache)


@pytest.fixture(scope="module")
def running(cache: Path) -> Iterator[daemon.SuiteContainerd]:
    with daemon.running(daemon.VERSIONS[0], cache, images.ensure(cache)) as found:
        yield found


@pytest.mark.parametrize("spec", FOCUS)
def test_spec_passes(program: Path, running: daemon.SuiteContainerd, spec: str) -> None:
    (outcome,) = suite.run(program, running, "parma", [spec])
    assert outcome.state is suite.State.PASS, outcome.message
    assert running.sweep() == 0, "the spec left a pod"
