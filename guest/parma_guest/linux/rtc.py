"""The real-time clock, as sysfs shows it: the host's idea of the time, in whole seconds."""

from __future__ import annotations

from parma_api.status import UnavailableError

PATH = "/sys/class/rtc/rtc0/since_epoch"


def read_rtc(path: str = PATH) -> int:
    """Seconds since the epoch, UTC. Raises UnavailableError without a clock."""
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 (pathlib costs an import)
            return int(file.read())
    except (OSError, ValueError) as error:
        raise UnavailableError(f"cannot read {path}: {error}") from error
