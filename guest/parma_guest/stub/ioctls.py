"""What the kernel's driver of /dev/sev-guest does with an ioctl (drivers/virt/coco/sev-guest/sev-guest.c). Pure.

An ioctl comes in rounds: each fetches more of the caller's memory, since addresses stand in what was fetched before.

    snp_guest_request_ioctl, 32   msg_version u8, 7 zero, req_data u64, resp_data u64, exitinfo2 u64
    snp_report_req, 96            user_data [64], vmpl u32, 28 zero      snp_report_resp, 4000   status u32, size u32,
    snp_ext_report_req, 112       snp_report_req, certs_address u64,       24 zero, report
                                    certs_len u32, 4
    snp_derived_key_req, 32       root_key_select u32, 4, guest_field_select u64, vmpl u32, guest_svn u32, tcb [8]
    snp_derived_key_resp, 64      status u32, 28 zero, key [32]
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from parma_api.snp import psp_wire
from parma_guest.stub.fuse_wire import COMPAT, Ioctl, Range

GET_REPORT: Final = 0xC0205300
GET_DERIVED_KEY: Final = 0xC0205301
GET_EXT_REPORT: Final = 0xC0205302
PAGE: Final = 4096
MAX_CERTIFICATES: Final = 16 * 1024
"""SEV_FW_BLOB_MAX_SIZE."""
INVALID_LENGTH: Final = 1 << 32
"""exitinfo2: SNP_GUEST_VMM_ERR_INVALID_LEN, the caller's room for certificates is too small."""
_UNSET: Final = 0xFF
"""exitinfo2 until something is known."""
_HEAD: Final = struct.Struct("<B7xQQQ")
_REPORT: Final = struct.Struct("<64sI28x")
_EXT: Final = struct.Struct("<64sI28xQI4x")
_KEY: Final = struct.Struct("<I4xQII8s")
_STATUS: Final = struct.Struct("<II24x")
_REPORT_RESPONSE, _KEY_RESPONSE = 4000, 64
_SIZES: Final = {
    GET_REPORT: (_REPORT.size, _REPORT_RESPONSE),
    GET_DERIVED_KEY: (_KEY.size, _KEY_RESPONSE),
    GET_EXT_REPORT: (_EXT.size, _REPORT_RESPONSE),
}
"""Bytes of request and response."""


@dataclass(frozen=True, slots=True)
class Retry:
    """More of the caller's memory is needed."""

    reads: tuple[Range, ...]
    writes: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The ioctl's result, 0 or -errno, and what is written to the caller; `disable`: the firmware failed."""

    result: int
    data: bytes = b""
    disable: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """The processor is asked all of `requests` in turn; `finish` has the answers, `failed` the first exitinfo2."""

    requests: tuple[psp_wire.Request, ...]
    finish: Callable[[tuple[psp_wire.Answer, ...]], Done]
    failed: Callable[[int], Done]
    gone: Done
    """The key was disabled in the meantime."""


Step = Retry | Done | Ask


def step(ioctl: Ioctl, *, disabled: bool = False) -> Step:
    """What to do next. `disabled`: an earlier request failed in the firmware, and the key must not be used again."""
    if ioctl.flags & COMPAT:
        return Done(-errno.ENOTTY)  # the driver has no entry for programs of 32 bits
    head: Range = (ioctl.argument, _HEAD.size)
    if len(ioctl.data) < _HEAD.size:
        return Retry((head,), (head,))
    version, request_at, response_at, _ = _HEAD.unpack_from(ioctl.data)
    if version == 0:
        return Done(-errno.EINVAL)
    failed = _with_exitinfo2(ioctl.data, _UNSET)
    if ioctl.command not in _SIZES:
        return Done(-errno.ENOTTY, failed)
    if not request_at or not response_at:
        return Done(-errno.EINVAL, failed)
    request_size, response_size = _SIZES[ioctl.command]
    request: Range = (request_at, request_size)
    writes: tuple[Range, ...] = (head, (response_at, response_size))
    if ioctl.command == GET_EXT_REPORT:
        room = _room(ioctl.data[_HEAD.size :])
        if room is None:
            return Done(-errno.EINVAL, failed)
        writes = (head, request, writes[1], *room)
    if len(ioctl.data) < _HEAD.size + request_size or ioctl.out_size != sum(n for _, n in writes):
        return Retry((head, request), writes)
    if disabled:
        return Done(-errno.ENOTTY, failed)
    return _ask(ioctl)


def _room(request: bytes) -> tuple[Range, ...] | None:
    """Where certificates may be written, once that is known; None for what the driver does not take.

    An address or a length of 0 offers no room; a host that has certificates then says how much it needs.
    """
    if len(request) < _EXT.size:
        return ()
    _, _, address, length = _EXT.unpack(request)
    if not address or not length:
        return ()
    if length > MAX_CERTIFICATES or length % PAGE:
        return None
    return ((address, length),)


def _ask(ioctl: Ioctl) -> Ask:
    data = ioctl.data[_HEAD.size :]
    if ioctl.command == GET_EXT_REPORT:
        return _Call(ioctl.data).ask_extended(_room(data) or ())
    if ioctl.command == GET_DERIVED_KEY:
        return _Call(ioctl.data).ask(psp_wire.DerivedKeyRequest(*_KEY.unpack(data)), _key)
    return _Call(ioctl.data).ask(psp_wire.ReportRequest(*_REPORT.unpack(data)), _report)


def _with_exitinfo2(head: bytes, value: int) -> bytes:
    return head[:24] + struct.pack("<Q", value)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call whose answer is still to come; `data` is the caller's structure and its request."""

    data: bytes

    def ask(self, request: psp_wire.Request, response: Callable[[psp_wire.Answer], bytes]) -> Ask:
        """One request whose answer is the response."""

        def finish(answers: tuple[psp_wire.Answer, ...]) -> Done:
            (answer,) = answers
            return Done(0, self.data[: _HEAD.size] + response(answer))

        return Ask((request,), finish, self.failed, self.gone())

    def ask_extended(self, room: tuple[Range, ...]) -> Ask:
        """The certificates before the report: without room for them there is none."""
        request, size = self.data[_HEAD.size :], sum(length for _, length in room)
        user_data, vmpl, _, _ = _EXT.unpack(request)

        def finish(answers: tuple[psp_wire.Answer, ...]) -> Done:
            table, report = answers
            if len(table.body) > size:
                need = -(-len(table.body) // PAGE) * PAGE
                told = request[:104] + struct.pack("<I", need) + request[108:]
                return Done(-errno.EIO, _with_exitinfo2(self.data, INVALID_LENGTH) + told)
            certificates = table.body.ljust(size, b"\0")
            return Done(0, self.data + _report(report) + certificates)

        requests = (psp_wire.CertificatesRequest(), psp_wire.ReportRequest(user_data, vmpl))
        return Ask(requests, finish, self.failed, self.gone())

    def failed(self, exitinfo2: int) -> Done:
        """The firmware or the host refuses: an I/O error, and the key is used no more."""
        return Done(-errno.EIO, _with_exitinfo2(self.data, exitinfo2), disable=True)

    def gone(self) -> Done:
        """There is no key to send it with."""
        return Done(-errno.ENOTTY, _with_exitinfo2(self.data, _UNSET))


def _report(answer: psp_wire.Answer) -> bytes:
    """snp_report_resp."""
    data = _STATUS.pack(answer.status, len(answer.body)) + answer.body
    return data.ljust(_REPORT_RESPONSE, b"\0")


def _key(answer: psp_wire.Answer) -> bytes:
    """snp_derived_key_resp."""
    data = struct.pack("<I28x", answer.status) + answer.body
    return data.ljust(_KEY_RESPONSE, b"\0")
