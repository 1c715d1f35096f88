"""Where attestation reports come from."""

from __future__ import annotations

from typing import Protocol

from parma_api.snp.report import SIZE
from parma_api.status import DataLossError

REPORT_DATA_SIZE = 64


class ReportProvider(Protocol):
    """One way to the security processor."""

    name: str
    """As Health tells it: configfs-tsm, sev-guest, stub."""

    async def report(self, report_data: bytes) -> bytes:
        """A report over 64 bytes, 1184 bytes long. Raises ApiError."""
        ...


def whole_report(data: bytes, name: str) -> bytes:
    """`data`, if it has a report's length. Raises DataLossError."""
    if len(data) != SIZE:
        raise DataLossError(f"{name} gave {len(data)} bytes, a report has {SIZE}")
    return data
