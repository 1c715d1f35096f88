"""The line that tells where a start's time went; `make bench` reads it."""

from __future__ import annotations

from parma_shim.sandbox.phases import Phases


def test_each_phase_lasts_from_the_end_of_the_one_before() -> None:
    times = iter([10.0, 10.25, 12.0])
    phases = Phases(lambda: next(times))
    phases.done("machine")
    phases.done("answer")
    assert str(phases) == "2.000 s: machine 0.250, answer 1.750"
