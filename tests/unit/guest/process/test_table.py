"""The table of processes: every transition, and the order in which ends are told."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.status import AlreadyExistsError, FailedPreconditionError, NotFoundError
from parma_guest.process import table as tables
from parma_guest.process.reaper import Exit
from parma_guest.process.table import Key, State, Table

ONE, PROBE, OTHER = Key("c1"), Key("c1", "e1"), Key("c1", "e2")
HOW = Exit(0, 1)


def running() -> Table:
    table = Table()
    table.add(ONE, 10, ("app",))
    table.start("c1")
    return table


def test_life() -> None:
    table = Table()
    table.add(ONE, 10, ("app",))
    assert table.get(ONE).state is State.CREATED
    table.start("c1")
    assert table.get(ONE).state is State.RUNNING
    table.ended(ONE, HOW)
    assert table.get(ONE).state is State.STOPPED
    assert table.drained(ONE) == (ONE,)
    table.forget("c1")
    with pytest.raises(NotFoundError):
        table.get(ONE)


def test_a_container_that_was_never_started_can_end() -> None:
    table = Table()
    table.add(ONE, 10, ("app",))
    table.ended(ONE, Exit(137, 1))
    with pytest.raises(FailedPreconditionError, match="stopped"):
        table.start("c1")


@pytest.mark.parametrize("key", [ONE, PROBE])
def test_a_name_is_taken_until_the_container_is_forgotten(key: Key) -> None:
    table = running()
    if key.exec_id:
        table.add(key, 11, ("probe",))
    table.ended(key, HOW)
    with pytest.raises(AlreadyExistsError):
        table.add(key, 12, ("again",))


def test_start_is_once() -> None:
    table = running()
    with pytest.raises(FailedPreconditionError, match="running, not created"):
        table.start("c1")
    with pytest.raises(NotFoundError):
        table.start("c2")


def test_a_further_process_needs_a_running_container() -> None:
    table = Table()
    with pytest.raises(NotFoundError):
        table.add(PROBE, 11, ())
    table.add(ONE, 10, ())
    with pytest.raises(FailedPreconditionError, match="created"):
        table.add(PROBE, 11, ())
    table.start("c1")
    table.ended(ONE, HOW)
    with pytest.raises(FailedPreconditionError, match="stopped"):
        table.add(PROBE, 11, ())


def test_processes_of_the_machine_need_no_container() -> None:
    table = Table()
    table.add(Key("", "e1"), 5, ("tool",))
    table.ended(Key("", "e1"), HOW)
    assert table.drained(Key("", "e1")) == (Key("", "e1"),)
    assert table.containers() == ()


def test_the_end_of_the_first_process_is_told_last() -> None:
    table = running()
    table.add(PROBE, 11, ())
    table.add(OTHER, 12, ())
    table.ended(ONE, HOW)
    assert table.drained(ONE) == ()
    table.ended(PROBE, HOW)
    assert table.drained(PROBE) == (PROBE,)
    table.ended(OTHER, HOW)
    assert table.drained(OTHER) == (OTHER, ONE)


def test_a_stopped_process_takes_no_signal() -> None:
    table = running()
    table.ended(ONE, HOW)
    with pytest.raises(NotFoundError, match="has ended"):
        table.require_alive(ONE)


def test_commands_are_those_of_the_living() -> None:
    table = running()
    table.add(PROBE, 11, ("probe", "-x"))
    assert table.commands("c1") == {"": ("app",), "e1": ("probe", "-x")}
    table.ended(PROBE, HOW)
    assert table.commands("c1") == {"": ("app",)}
    assert table.commands("unknown") == {}


def test_a_living_container_is_not_forgotten() -> None:
    table = running()
    with pytest.raises(FailedPreconditionError):
        table.forget("c1")


def test_ended_processes_count_against_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_PROCESSES", 2)
    table = running()
    table.add(PROBE, 11, ())
    table.ended(PROBE, HOW)
    with pytest.raises(FailedPreconditionError, match="no more"):
        table.add(OTHER, 12, ())


@given(st.permutations([ONE, PROBE, OTHER]), st.permutations([ONE, PROBE, OTHER]))
def test_each_end_is_told_once_and_the_first_process_last(
    ends: list[Key], drains: list[Key]
) -> None:
    table = running()
    table.add(PROBE, 11, ())
    table.add(OTHER, 12, ())
    for key in ends:
        table.ended(key, HOW)
    told = list(itertools.chain.from_iterable(table.drained(key) for key in drains))
    assert sorted(told) == sorted([ONE, PROBE, OTHER])
    assert told[-1] == ONE
