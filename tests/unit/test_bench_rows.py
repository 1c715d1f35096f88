"""Rows of `make bench`: the interval, the limits, the form of bench.json."""

from __future__ import annotations

import pytest

from tests.bench.row import Limit, Row, interval, row


def test_a_row_is_the_ratio_of_medians() -> None:
    made = row("a", "ms", [2.0, 3.0, 10.0], "b", [1.0, 1.5, 2.0])
    assert (made.value, made.baseline_value, made.ratio) == (3.0, 1.5, 2.0)
    assert made.low <= made.ratio <= made.high
    assert made.document() == {
        "name": "a",
        "value": 3.0,
        "unit": "ms",
        "baseline": {"name": "b", "value": 1.5},
        "ratio": 2.0,
        "n": 3,
        "low": round(made.low, 4),
        "high": round(made.high, 4),
    }


def test_the_interval_holds_what_the_samples_say() -> None:
    assert interval([2.0] * 9, [1.0] * 9) == (2.0, 2.0)
    low, high = interval([1.0, 2.0, 3.0, 4.0] * 5, [1.0] * 9)
    assert 1.0 <= low < 2.5 < high <= 4.0


@pytest.mark.parametrize(
    ("limit", "holds"),
    [
        (None, True),
        (Limit(ratio=2), True),
        (Limit(ratio=1.99), False),
        (Limit(over=1.5), True),
        (Limit(over=1.4), False),
        (Limit(least=2), True),
        (Limit(least=2.1), False),
    ],
)
def test_limits(limit: Limit | None, holds: bool) -> None:
    assert Row("a", 3.0, "ms", "b", 1.5, 3, 2.0, 1.9, 2.1, limit).holds is holds
