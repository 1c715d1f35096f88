"""Reports from the kernel's interfaces, and the choice among those that a container has.

/dev/sev-guest (include/uapi/linux/sev-guest.h), SNP_GET_EXT_REPORT:
    snp_guest_request_ioctl  msg_version u8, 7 zero, req_data u64, resp_data u64, exitinfo2 u64
    snp_ext_report_req       user_data [64], vmpl u32, 28 zero, certs_address u64, certs_len u32, 4 zero
    snp_report_resp [4000]   status u32, report_size u32, 24 zero, report
configfs-tsm (Documentation/ABI/testing/configfs-tsm-report): a directory is a request.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from parma_api.snp.report import SIZE
from parma_api.status import DataLossError, FailedPreconditionError, UnavailableError
from parma_tenant.claims.source import (
    AgentSource,
    FixedCertificates,
    ReportSource,
    SocketSource,
    whole_report,
)

DEVICE: Final = "/dev/sev-guest"
TSM: Final = "/sys/kernel/config/tsm/report"
AGENT_SOCKET: Final = "/run/parma/report/agent.sock"
SNP_GET_EXT_REPORT: Final = 0xC0205302
_IOCTL: Final = struct.Struct("<B7xQQQ")
_REQUEST: Final = struct.Struct("<64sI28xQI4x")
_RESPONSE_SIZE: Final = 4000
_REPORT_AT: Final = 32
_TABLE_SIZE: Final = 16 * 1024
_ATTEMPTS: Final = 3
_MAX_CERTIFICATES: Final = 1 << 20


class SevGuestSource:
    """`/dev/sev-guest`. See ReportSource."""

    def __init__(self, device: str = DEVICE) -> None:
        self._device = device

    def __repr__(self) -> str:
        return self._device

    async def report(self, report_data: bytes) -> bytes:
        """See ReportSource."""
        report, _ = await asyncio.to_thread(self._ask, report_data)
        return whole_report(report, report_data)

    async def certificates(self) -> bytes:
        """The table of an extended report; empty where the host gives none."""
        _, table = await asyncio.to_thread(self._ask, bytes(64))
        return table if any(table) else b""

    def _ask(self, report_data: bytes) -> tuple[bytes, bytes]:
        table = ctypes.create_string_buffer(_TABLE_SIZE)
        packed = _REQUEST.pack(report_data, 0, ctypes.addressof(table), _TABLE_SIZE)
        request = ctypes.create_string_buffer(packed, _REQUEST.size)
        response = ctypes.create_string_buffer(_RESPONSE_SIZE)
        addresses = (ctypes.addressof(request), ctypes.addressof(response))
        try:
            fd = os.open(self._device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, SNP_GET_EXT_REPORT, bytearray(_IOCTL.pack(1, *addresses, 0xFF)))
            finally:
                os.close(fd)
        except OSError as error:
            raise UnavailableError(f"{self._device} gives no report: {error.strerror}") from error
        status, size = struct.unpack_from("<II", response.raw)
        if status or size != SIZE:
            raise UnavailableError(f"the security processor answers status {status:#x}")
        return response.raw[_REPORT_AT : _REPORT_AT + SIZE], table.raw


class TsmSource:
    """configfs-tsm. See ReportSource."""

    def __init__(self, root: str = TSM) -> None:
        self._root = Path(root)
        self._number = 0

    def __repr__(self) -> str:
        return str(self._root)

    async def report(self, report_data: bytes) -> bytes:
        """See ReportSource."""
        report, _ = await asyncio.to_thread(self._ask, report_data)
        return whole_report(report, report_data)

    async def certificates(self) -> bytes:
        """`auxblob`, the same table."""
        _, table = await asyncio.to_thread(self._ask, bytes(64))
        return table

    def available(self) -> bool:
        """Whether a provider is behind it: without one, making an entry fails (ENXIO)."""
        try:
            self._make().rmdir()
        except OSError:
            return False
        return True

    def _make(self) -> Path:
        self._number += 1
        entry = self._root / f"claims-{os.getpid()}-{self._number}"
        entry.mkdir()
        return entry

    def _ask(self, report_data: bytes) -> tuple[bytes, bytes]:
        try:
            entry = self._make()
            try:
                return _read_entry(entry, report_data)
            finally:
                entry.rmdir()
        except OSError as error:
            raise UnavailableError(f"{self._root} gives no report: {error.strerror}") from error


def _read_entry(entry: Path, report_data: bytes) -> tuple[bytes, bytes]:
    for _ in range(_ATTEMPTS):
        before = int((entry / "generation").read_text())
        (entry / "inblob").write_bytes(report_data)
        report = (entry / "outblob").read_bytes()
        table = b""
        with contextlib.suppress(FileNotFoundError):
            table = (entry / "auxblob").read_bytes()
        if int((entry / "generation").read_text()) == before + 1:
            return report, table
    raise OSError(errno.EBUSY, "somebody else writes this entry")


def choose_source(environment: Mapping[str, str], root: Path = Path("/")) -> ReportSource:
    """As `own_source`; certificates come from the security-context directory when it holds any. Raises as it."""
    return FixedCertificates(own_source(environment, root), context_certificates(environment, root))


def own_source(environment: Mapping[str, str], root: Path = Path("/")) -> ReportSource:
    """configfs-tsm, else the device, else the agent's socket; $PARMA_REPORT_SOCKET names one that speaks `psp_wire`.

    Raises FailedPreconditionError.
    """
    if named := environment.get("PARMA_REPORT_SOCKET"):
        return SocketSource(named)
    tsm = TsmSource(str(root / TSM[1:]))
    if tsm.available():
        return tsm
    if (device := root / DEVICE[1:]).exists():
        return SevGuestSource(str(device))
    if (socket := root / AGENT_SOCKET[1:]).exists():
        return AgentSource(str(socket))
    raise FailedPreconditionError(
        f"no source of reports: neither configfs-tsm, nor {DEVICE}, nor {AGENT_SOCKET}; the policy must allow this"
        " container to be privileged"
    )


def context_certificates(environment: Mapping[str, str], root: Path = Path("/")) -> bytes:
    """`host-amd-cert-base64` of the security-context directory, decoded; empty if there is none.

    Raises DataLossError.
    """
    text = context_file(environment, "host-amd-cert-base64", root)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise DataLossError("host-amd-cert-base64 is no base64") from None


def context_file(environment: Mapping[str, str], name: str, root: Path = Path("/")) -> bytes:
    """A file of the security-context directory, found as the sidecars of Azure find it; empty if there is none."""
    found = [environment[key] for key in ("UVM_SECURITY_CONTEXT_DIR",) if environment.get(key)]
    folders = [root / path.lstrip("/") for path in found] or sorted(root.glob("security-context-*"))
    for folder in folders:
        with contextlib.suppress(OSError), (folder / name).open("rb") as stream:
            return stream.read(_MAX_CERTIFICATES)
    return b""
