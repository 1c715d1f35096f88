"""When the clock is stepped."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_api.status import UnavailableError
from parma_guest import clock
from parma_guest.linux.rtc import read_rtc

NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("rtc", "system", "wanted"),
    [
        pytest.param(NOW, NOW + 0.5, None, id="right"),
        pytest.param(NOW, NOW + 2.4, None, id="a little fast"),
        pytest.param(NOW, NOW - 1.4, None, id="a little slow"),
        pytest.param(NOW, NOW + 2.6, NOW + 0.5, id="fast"),
        pytest.param(NOW, NOW - 3600, NOW + 0.5, id="the host was suspended"),
        pytest.param(NOW, 0.0, NOW + 0.5, id="boot without hctosys"),
        pytest.param(NOW, NOW + 86400, NOW + 0.5, id="backwards"),
        pytest.param(clock.FLOOR - 1, NOW, None, id="older than the image"),
        pytest.param(0, NOW, None, id="dead battery"),
    ],
)
def test_correction(rtc: int, system: float, wanted: float | None) -> None:
    assert clock.correction(rtc, system) == wanted


def test_check_steps_once_and_says_by_how_much() -> None:
    steps: list[float] = []
    assert clock.check(lambda: NOW, lambda: NOW - 100.0, steps.append) == 100.5
    assert steps == [NOW + 0.5]
    assert clock.check(lambda: NOW, lambda: NOW + 0.5, steps.append) is None
    assert len(steps) == 1


def test_rtc_of_sysfs(tmp_path: Path) -> None:
    file = tmp_path / "since_epoch"
    file.write_text("1800000000\n")
    assert read_rtc(str(file)) == NOW
    file.write_text("nonsense\n")
    with pytest.raises(UnavailableError):
        read_rtc(str(file))
    with pytest.raises(UnavailableError):
        read_rtc(str(tmp_path / "absent"))
