"""Breadth first through all states, equal ones merged; the first breach is a shortest one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Final, TypeAlias

from parma_api.policy.metadata import Metadata
from tests.prove.guest import Guest, Parts, State, open_guest
from tests.prove.invariant import BrokenError, check_state, check_step, key
from tests.prove.kernel import ModelError
from tests.prove.story import LOAD, Mishap, Request, requests

KILL_DEPTH: Final = 4
"""OPA is killed in states that are less than this deep: its restart takes as long as a hundred decisions."""
_REQUESTS: Final = requests()
_CHUNK: Final = 8
"""States that a worker takes at once."""


Chunk: TypeAlias = Sequence[tuple[int, State]]
"""States with their numbers."""


@dataclass(frozen=True, slots=True)
class Step:
    """One transition that led to a state which nobody had met, or to a breach."""

    parent: int
    name: str
    state: State
    key: str
    broken: str = ""


@dataclass(slots=True)
class Outcome:
    """What the exploration found."""

    states: int = 0
    transitions: int = 0
    refused: int = 0
    failed: int = 0
    depth: int = 0
    complete: bool = False
    """No state is left whose requests have not been played."""
    counterexample: list[str] = field(default_factory=list)
    broken: str = ""
    seconds: float = 0.0

    def text(self) -> str:
        """For people."""
        reach = "all reachable states" if self.complete else f"all sequences of up to {self.depth}"
        lines = [
            f"{self.states} states, {self.transitions} transitions ({self.refused} refused, {self.failed} failed on "
            f"purpose) in {self.seconds:.0f} s: {reach}",
        ]
        if self.broken:
            lines += [f"BROKEN: {self.broken}", "shortest way there:"]
            lines += [f"  {number}. {name}" for number, name in enumerate(self.counterexample, 1)]
        else:
            lines.append("the invariant holds in each of them")
        return "\n".join(lines)


@dataclass(slots=True)
class Batch:
    """What one chunk of states led to."""

    steps: list[Step] = field(default_factory=list)
    transitions: int = 0
    refused: int = 0
    failed: int = 0


async def expand(guest: Guest, states: Chunk, *, kill: bool) -> Batch:
    """Play every request, and every mishap of those that are allowed, in each of the states."""
    batch = Batch()
    for number, state in states:
        for index, request in enumerate(_REQUESTS):
            if not await _play(guest, batch, number, state, request, Mishap.NONE, 0):
                continue
            operations = guest.kernel.performed
            if request.method != LOAD and operations:
                at = (number + index) % operations
                await _play(guest, batch, number, state, request, Mishap.FAILS, at)
                last = operations - 1
                await _play(guest, batch, number, state, request, Mishap.UNDO_FAILS, last)
            if kill and request.method != LOAD:
                await _play(guest, batch, number, state, request, Mishap.KILLED, 0)
    return batch


async def _play(
    guest: Guest,
    batch: Batch,
    number: int,
    state: State,
    request: Request,
    mishap: Mishap,
    fail_at: int,
) -> bool:
    """Whether the request was carried out."""
    guest.restore(state)
    name = request.name if mishap is Mishap.NONE else f"{request.name} ({mishap.value})"
    broken, refused = "", None
    try:
        error = await guest.ask(request, mishap, fail_at)
        refused = None if error is None else error.message
        after = guest.state()
        check_step(state, after, refused)
        check_state(after)
    except (BrokenError, ModelError) as breach:
        broken, after = str(breach), guest.state()
    batch.transitions += 1
    batch.refused += refused is not None and mishap is Mishap.NONE
    batch.failed += refused is not None and mishap is not Mishap.NONE
    if broken or refused is None or after.inconsistent != state.inconsistent:
        batch.steps.append(Step(number, name, after, "" if broken else key(after), broken))
    return refused is None and not broken


@dataclass(slots=True)
class _Frontier:
    """All states by number, how each was reached, and which have been met."""

    states: list[State] = field(default_factory=list)
    ways: list[tuple[int, str]] = field(default_factory=list)
    met: set[int] = field(default_factory=set)

    def add(self, step: Step) -> int | None:
        """The new state's number; None if it was met before."""
        mark = hash(step.key)
        if mark in self.met:
            return None
        self.met.add(mark)
        self.states.append(step.state)
        self.ways.append((step.parent, step.name))
        return len(self.states) - 1

    def way(self, step: Step) -> list[str]:
        """The requests that lead to a step, the first one first."""
        names, number = [step.name], step.parent
        while number:
            number, name = self.ways[number]
            names.append(name)
        return names[::-1]


Expand: TypeAlias = Callable[[Chunk, int], Generator[Batch, None, None]]


def search(expand_all: Expand, initial: State, depth: int, seconds: float) -> Outcome:
    """Level by level, until a breach, the depth, the time, or the end of all states."""
    begin, outcome, frontier = time.monotonic(), Outcome(), _Frontier()
    frontier.add(Step(0, "", initial, key(initial)))
    level: list[int] = [0]
    while level and outcome.depth < depth:
        asked = [(number, frontier.states[number]) for number in level]
        with closing(expand_all(asked, outcome.depth)) as batches:
            fresh = _play_level(outcome, frontier, batches, begin + seconds)
        if fresh is None:
            break
        level = fresh
        outcome.depth += 1
    outcome.complete = not level
    outcome.states, outcome.seconds = len(frontier.states), time.monotonic() - begin
    return outcome


def _play_level(
    outcome: Outcome, frontier: _Frontier, batches: Iterable[Batch], until: float
) -> list[int] | None:
    """The numbers of the states that are new; None at a breach, or when the time is over."""
    fresh: list[int] = []
    for batch in batches:
        outcome.transitions += batch.transitions
        outcome.refused += batch.refused
        outcome.failed += batch.failed
        for step in batch.steps:
            if step.broken:
                outcome.broken, outcome.counterexample = step.broken, frontier.way(step)
                return None
            if (number := frontier.add(step)) is not None:
                fresh.append(number)
        if time.monotonic() > until:
            return None
    return fresh


def _chunks(states: Chunk) -> list[Chunk]:
    return [states[at : at + _CHUNK] for at in range(0, len(states), _CHUNK)]


def explore(
    depth: int, seconds: float, parts: Parts | None = None, kill_depth: int = KILL_DEPTH
) -> Outcome:
    """In this process, with one guest."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        guest = runner.run(stack.enter_async_context(open_guest(parts)))

        def expand_all(states: Chunk, at: int) -> Generator[Batch, None, None]:
            return (
                runner.run(expand(guest, chunk, kill=at < kill_depth)) for chunk in _chunks(states)
            )

        try:
            return search(expand_all, guest.initial(), depth, seconds)
        finally:
            runner.run(stack.aclose())


def _work(connection: Connection) -> None:
    """A process with a guest of its own: takes chunks, gives batches, ends at None."""

    async def serve() -> None:
        async with open_guest() as guest:
            while (job := await asyncio.to_thread(connection.recv)) is not None:
                chunk, kill = job
                connection.send(await expand(guest, chunk, kill=kill))

    asyncio.run(serve())


@contextmanager
def _workers(count: int) -> Iterator[list[Connection]]:
    context = get_context("spawn")
    pairs = [context.Pipe() for _ in range(count)]
    processes = [context.Process(target=_work, args=(theirs,)) for _, theirs in pairs]
    for process, (_, theirs) in zip(processes, pairs, strict=True):
        process.start()
        theirs.close()
    try:
        yield [ours for ours, _ in pairs]
    finally:
        for ours, _ in pairs:
            with suppress(OSError):
                ours.send(None)
        for process in processes:
            process.join(30)
            process.kill()


def _spread(
    workers: Sequence[Connection], chunks: Sequence[Chunk], *, kill: bool
) -> Generator[Batch, None, None]:
    """Each chunk to whoever is idle; batches as they come. Raises EOFError when a worker has ended."""
    left, idle, busy = list(reversed(chunks)), list(workers), list[Connection]()
    try:
        while left or busy:
            while left and idle:
                chosen = idle.pop()
                chosen.send((left.pop(), kill))
                busy.append(chosen)
            for done in wait(busy):
                assert isinstance(done, Connection)
                busy.remove(done)
                idle.append(done)
                yield done.recv()
    finally:
        for late in busy:
            late.recv()


def explore_in_parallel(depth: int, seconds: float) -> Outcome:
    """With a guest and an OPA on each processor."""
    with _workers(os.cpu_count() or 1) as workers:

        def expand_all(states: Chunk, at: int) -> Generator[Batch, None, None]:
            return _spread(workers, _chunks(states), kill=at < KILL_DEPTH)

        return search(expand_all, State(Metadata.initial()), depth, seconds)
