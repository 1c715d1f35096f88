"""configfs-tsm (Documentation/ABI/testing/configfs-tsm-report; Linux 6.7): a directory is a request."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from parma_api.snp.report import SIZE
from parma_api.status import UnavailableError
from parma_guest.attest.provider import whole_report
from parma_guest.linux.errno import kernel_call

ROOT = "/sys/kernel/config/tsm/report"
_ATTEMPTS = 3


class ConfigfsTsm:
    """See ReportProvider."""

    name = "configfs-tsm"

    def __init__(self, root: str = ROOT) -> None:
        self._root = root
        self._number = 0

    async def report(self, report_data: bytes) -> bytes:
        """See ReportProvider. Raises KernelError, UnavailableError (others write the same entry), DataLossError."""
        return await asyncio.to_thread(self._report, report_data)

    def available(self) -> bool:
        """Whether the kernel has a provider behind it: without one, making an entry fails (ENXIO)."""
        try:
            entry = self._make()
        except OSError:
            return False
        self._remove(entry)
        return True

    def _report(self, report_data: bytes) -> bytes:
        with kernel_call("mkdir", self._root):
            entry = self._make()
        try:
            for _ in range(_ATTEMPTS):
                before = _generation(entry)
                _write(f"{entry}/inblob", report_data)
                data = _read(f"{entry}/outblob")
                if _generation(entry) == before + 1:
                    return whole_report(data, self.name)
        finally:
            self._remove(entry)
        raise UnavailableError("configfs-tsm: somebody else writes our request")

    def _make(self) -> str:
        self._number += 1
        entry = f"{self._root}/parma-{os.getpid()}-{self._number}"
        os.mkdir(entry)  # noqa: PTH102 (pathlib costs an import)
        return entry

    def _remove(self, entry: str) -> None:
        with suppress(OSError):
            os.rmdir(entry)  # noqa: PTH106 (pathlib costs an import)


def _generation(entry: str) -> int:
    return int(_read(f"{entry}/generation"))


def _write(path: str, data: bytes) -> None:
    """In one write: the attribute takes a value when it is closed."""
    with kernel_call("write", path):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)


def _read(path: str) -> bytes:
    with kernel_call("read", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = bytearray()
            while len(data) <= SIZE and (part := os.read(fd, 2 * SIZE)):
                data += part
            return bytes(data)
        finally:
            os.close(fd)
