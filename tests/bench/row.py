"""One figure and its baseline: samples taken in turns, medians, and a bootstrap interval of their ratio."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Rows: TypeAlias = "list[Row]"
_RESAMPLES: Final = 1000
_SEED: Final = 1
"""The interval is a function of the samples alone."""
_PART: Final = 0.025


@dataclass(frozen=True, slots=True)
class Limit:
    """What the figure must hold."""

    ratio: float | None = None
    """At most this many times the baseline."""
    over: float | None = None
    """At most this much above the baseline, in the row's unit."""
    least: float | None = None
    """At least this many times the baseline."""

    def __str__(self) -> str:
        parts = []
        if self.ratio is not None:
            parts.append(f"<= {self.ratio:g}x")
        if self.over is not None:
            parts.append(f"<= +{self.over:g}")
        if self.least is not None:
            parts.append(f">= {self.least:g}x")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, and one object of bench.json."""

    name: str
    value: float
    unit: str
    baseline: str
    baseline_value: float
    n: int
    ratio: float
    low: float
    high: float
    limit: Limit | None = None

    @property
    def holds(self) -> bool:
        """Whether the limit, if there is one, is kept."""
        limit = self.limit
        if limit is None:
            return True
        return (
            (limit.ratio is None or self.ratio <= limit.ratio)
            and (limit.over is None or self.value - self.baseline_value <= limit.over)
            and (limit.least is None or self.ratio >= limit.least)
        )

    def document(self) -> dict[str, object]:
        """As contracts name it."""
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "baseline": {"name": self.baseline, "value": round(self.baseline_value, 4)},
            "ratio": round(self.ratio, 4),
            "n": self.n,
            "low": round(self.low, 4),
            "high": round(self.high, 4),
        }


def row(
    name: str,
    unit: str,
    taken: Sequence[float],
    baseline: str,
    base: Sequence[float],
    limit: Limit | None = None,
) -> Row:
    """A row of two lists of samples; `value` is the median."""
    value, under = statistics.median(taken), statistics.median(base)
    low, high = interval(taken, base)
    return Row(name, value, unit, baseline, under, len(taken), value / under, low, high, limit)


def interval(taken: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """95 % of the ratio of medians, by resampling both lists."""
    draw = random.Random(_SEED)
    ratios = sorted(
        statistics.median(draw.choices(taken, k=len(taken)))
        / statistics.median(draw.choices(base, k=len(base)))
        for _ in range(_RESAMPLES)
    )
    return ratios[int(_RESAMPLES * _PART)], ratios[int(_RESAMPLES * (1 - _PART)) - 1]


def in_turns(rounds: int, *arms: Callable[[], object], warm_up: int = 1) -> tuple[list[float], ...]:
    """Seconds of each arm, taken in turns: what else the machine does meets all alike."""
    times: tuple[list[float], ...] = tuple([] for _ in arms)
    for number in range(warm_up + rounds):
        for work, kept in zip(arms, times, strict=True):
            begin = time.perf_counter()
            work()
            if number >= warm_up:
                kept.append(time.perf_counter() - begin)
    return times


async def in_turns_async(
    rounds: int, *arms: Callable[[], Awaitable[object]], warm_up: int = 5
) -> tuple[list[float], ...]:
    """The same for coroutines."""
    times: tuple[list[float], ...] = tuple([] for _ in arms)
    for number in range(warm_up + rounds):
        for work, kept in zip(arms, times, strict=True):
            begin = time.perf_counter()
            await work()
            if number >= warm_up:
                kept.append(time.perf_counter() - begin)
    return times


def scaled(values: Sequence[float], factor: float) -> list[float]:
    """Such as seconds to milliseconds."""
    return [value * factor for value in values]
