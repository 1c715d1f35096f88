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
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def outcomes(cache: Path) -> Iterator[dict[str, suite.Outcome]]:
    """Of one run of all chosen specs; no pod is left by them."""
    program = programs.critest(cache)
    with daemon.running(daemon.VERSIONS[0], cache, images.ensure(cache)) as running:
        found = suite.run(program, running, "parma", FOCUS)
        assert running.sweep() == 0
        yield {outcome.spec: outcome for outcome in found}


@pytest.mark.parametrize("spec", FOCUS)
def test_spec_passes(outcomes: dict[str, suite.Outcome], spec: str) -> None:
    assert outcomes[spec].state is suite.State.PASS, outcomes[spec].message
