"""The invariant in all sequences of up to four requests, and three planted faults that must be found.

`make prove` goes as deep as ten minutes allow. Here OPA is killed in the first state only.
"""

from __future__ import annotations

import dataclasses

import pytest

from parma_api.policy.metadata import Action, Command, Kind
from tests.prove.explore import explore
from tests.prove.faults import FAULTS
from tests.prove.guest import State, open_guest
from tests.prove.invariant import BrokenError, check_state, check_step, key
from tests.prove.kernel import World
from tests.prove.story import IDS, ROGUE, Mishap, requests

DEPTH = 4


def test_the_invariant_holds() -> None:
    outcome = explore(DEPTH, 100, kill_depth=1)
    print(outcome.text())
    assert outcome.broken == "", outcome.text()
    assert outcome.depth == DEPTH, "the time was over first"
    assert outcome.states > 30
    assert outcome.refused > 500
    assert outcome.failed > 100


@pytest.mark.parametrize(
    ("fault", "said", "way"),
    [
        (
            "commit on denial",
            "and yet the state is another",
            ["mount disk 3 at its place"],
        ),
        (
            "forgotten inverse",
            "and yet the state is another",
            ["mount disk 0 at its place (an operation fails)"],
        ),
        (
            "gate bypass",
            "devices: the kernel has",
            ["mount disk 0 at its place"],
        ),
    ],
)
def test_a_planted_fault_is_found_on_a_shortest_way(fault: str, said: str, way: list[str]) -> None:
    outcome = explore(DEPTH, 100, FAULTS[fault], kill_depth=0)
    assert said in outcome.broken
    assert outcome.counterexample == way
    assert "BROKEN" in outcome.text()


async def test_a_whole_life_passes_and_comes_back() -> None:
    """The story's requests reach what they are meant to reach: a running container with a process, and its end."""
    by_name = {request.name: request for request in requests()}
    async with open_guest() as guest:
        guest.restore(guest.initial())
        for name in (
            "mount scratch",
            "mount disk 0 at its place",
            "mount disk 1 at its place",
            "id 0: overlay of web's layers",
            "id 0: create /bin/web",
            "id 0: exec /bin/probe",
            "load the fragment",
        ):
            assert await guest.ask(by_name[name], Mishap.KILLED, 0) is None, name
            check_state(guest.state())
        state = guest.state()
        assert len(state.world.processes) == 2
        guest.restore(guest.initial())
        assert key(guest.state()) == key(guest.initial()) != key(state)
        guest.restore(state)
        for name in (
            "id 0: signal 9",
            "id 0: shutdown",
            "id 0: unmount overlay",
            "unmount m1",
            "unmount m0",
            "unmount scratch",
        ):
            assert await guest.ask(by_name[name], Mishap.NONE, 0) is None, name
            check_state(guest.state())
        assert guest.state().world == World()


def _state(mounted: str, known: str) -> State:
    from parma_api.policy.metadata import Metadata

    target = "/run/mounts/scsi/m0"
    command = Command("devices", Action.ADD, Kind.MAP, target, known)
    table = f"0 8 verity 1 a a 4096 4096 1 2 sha256 {mounted} 00"
    world = World(devices={"layer-1": table}, mounts={target: ("device", "layer-1")})
    return State(Metadata.initial().apply([command]), world=world)


def test_the_checks_see_differences() -> None:
    with pytest.raises(BrokenError, match="devices: the kernel has"):
        check_state(_state("a1" * 32, "b2" * 32))
    with pytest.raises(BrokenError, match="devices: the kernel has"):
        check_state(_state(ROGUE, ROGUE))  # the ledger knows nothing of it
    one, two = _state(ROGUE, ROGUE), _state("a1" * 32, "a1" * 32)
    with pytest.raises(BrokenError, match="the state is another"):
        check_step(one, two, "refused")
    check_step(one, one, "refused")
    check_step(one, two, None)
    broken = dataclasses.replace(one, inconsistent="an undo failed")
    check_step(one, broken, "an undo failed")
    check_state(broken)
    with pytest.raises(BrokenError, match="inconsistent group was changed"):
        check_step(broken, broken, None)


def test_ids_and_device_names_are_symmetric() -> None:
    def world(number: int, device: str) -> State:
        state = _state(ROGUE, ROGUE)
        processes = frozenset({(IDS[number], "", ("/bin/web",))})
        mounts = dict.fromkeys(state.world.mounts, ("device", device))
        (table,) = state.world.devices.values()
        return dataclasses.replace(state, world=World({device: table}, mounts, processes=processes))

    assert key(world(0, "layer-1")) == key(world(1, "layer-7"))
    assert key(world(0, "layer-1")) != key(_state(ROGUE, ROGUE))
