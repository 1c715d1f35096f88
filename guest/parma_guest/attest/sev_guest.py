"""/dev/sev-guest, ioctl SNP_GET_REPORT (Documentation/virt/coco/sev-guest.rst, include/uapi/linux/sev-guest.h).

struct snp_guest_request_ioctl   msg_version u8, 7 zero, req_data u64, resp_data u64, exitinfo2 u64
struct snp_report_req            user_data [64], vmpl u32, 28 zero
struct snp_report_resp [4000]    status u32, report_size u32, 24 zero, report
"""

from __future__ import annotations

import asyncio
import os
import struct

from parma_api.snp.report import SIZE
from parma_api.status import UnavailableError
from parma_guest.attest.provider import whole_report
from parma_guest.linux.errno import kernel_call

DEVICE = "/dev/sev-guest"
SNP_GET_REPORT = 0xC0205300
_REQUEST = struct.Struct("<64sI28x")
_RESPONSE_SIZE, _REPORT_AT = 4000, 32
_IOCTL = struct.Struct("<B7xQQQ")


class SevGuest:
    """See ReportProvider."""

    name = "sev-guest"

    def __init__(self, device: str = DEVICE) -> None:
        self._device = device

    async def report(self, report_data: bytes) -> bytes:
        """See ReportProvider. Raises KernelError, UnavailableError (the firmware refuses), DataLossError."""
        return await asyncio.to_thread(self._report, report_data)

    def _report(self, report_data: bytes) -> bytes:
        import ctypes
        import fcntl

        request = ctypes.create_string_buffer(_REQUEST.pack(report_data, 0), _REQUEST.size)
        response = ctypes.create_string_buffer(_RESPONSE_SIZE)
        addresses = (ctypes.addressof(request), ctypes.addressof(response))
        message = bytearray(_IOCTL.pack(1, *addresses, 0xFF))
        with kernel_call("SNP_GET_REPORT", self._device):
            fd = os.open(self._device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, SNP_GET_REPORT, message)
            finally:
                os.close(fd)
        return read_response(response.raw)


def read_response(data: bytes) -> bytes:
    """The report in a response. Raises UnavailableError, DataLossError."""
    status, size = struct.unpack_from("<II", data)
    if status:
        raise UnavailableError(f"the security processor answers status {status:#x}")
    if size != SIZE:
        return whole_report(data[_REPORT_AT : _REPORT_AT + min(size, len(data))], SevGuest.name)
    return data[_REPORT_AT : _REPORT_AT + SIZE]
