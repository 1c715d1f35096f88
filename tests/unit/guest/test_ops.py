"""The runner of operations: order, undo, and what happens if an undo fails."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from parma_api.status import InternalError
from parma_guest import ops


class PlantedError(InternalError):
    """What the test makes fail."""


@dataclass(frozen=True)
class Step:
    name: str
    journal: list[str]
    fails: bool = False
    undo_fails: bool = False
    has_undo: bool = True

    def describe(self) -> str:
        return f"step {self.name}"

    def apply(self) -> ops.Undo | None:
        if self.fails:
            raise PlantedError(f"{self.name} failed")
        self.journal.append(f"+{self.name}")
        return self._undo if self.has_undo else None

    def _undo(self) -> None:
        self.journal.append(f"-{self.name}")
        if self.undo_fails:
            raise PlantedError(f"undo of {self.name} failed")


def test_success_undoes_nothing() -> None:
    journal: list[str] = []
    ops.apply((Step("a", journal), Step("b", journal)), finish=lambda: journal.append("finish"))
    assert journal == ["+a", "+b", "finish"]


def test_a_failure_undoes_in_reverse_and_is_raised_as_it_was() -> None:
    journal: list[str] = []
    steps = (
        Step("a", journal),
        Step("b", journal, has_undo=False),
        Step("c", journal),
        Step("d", journal, fails=True),
    )
    with pytest.raises(PlantedError, match="d failed"):
        ops.apply(steps)
    assert journal == ["+a", "+b", "+c", "-c", "-a"]


def test_a_failing_finish_undoes_everything() -> None:
    journal: list[str] = []

    def finish() -> None:
        raise PlantedError("too late")

    with pytest.raises(PlantedError, match="too late"):
        ops.apply((Step("a", journal),), finish=finish)
    assert journal == ["+a", "-a"]


def test_an_undo_that_fails_stops_no_other_undo_and_marks_the_error() -> None:
    journal: list[str] = []
    steps = (
        Step("a", journal),
        Step("b", journal, undo_fails=True),
        Step("c", journal, fails=True),
    )
    with pytest.raises(ops.UndoFailedError, match=r"c failed; then: undo of \[step b\]") as caught:
        ops.apply(steps)
    assert journal == ["+a", "+b", "-b", "-a"]
    assert isinstance(caught.value.__cause__, PlantedError)


def test_what_cannot_be_taken_back_makes_a_later_failure_inconsistent() -> None:
    @dataclass(frozen=True)
    class Once(Step):
        def apply(self) -> ops.Undo:
            return ops.irreversible(self.name)

    with pytest.raises(ops.UndoFailedError, match="cannot take back: x"):
        ops.apply((Once("x", []), Step("y", [], fails=True)))


def test_an_interrupt_undoes_as_well() -> None:
    journal: list[str] = []

    def finish() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ops.apply((Step("a", journal),), finish=finish)
    assert journal == ["+a", "-a"]


def test_description_is_the_plan_as_text() -> None:
    assert ops.describe((Step("a", []), Step("b", []))) == ("step a", "step b")
