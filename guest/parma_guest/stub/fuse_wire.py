"""The messages that FUSE and CUSE have in common (include/uapi/linux/fuse.h, protocol 7). Pure: bytes in, bytes out.

request   len u32, opcode u32, unique u64, nodeid u64, uid u32, gid u32, pid u32, u16, u16, body
answer    len u32, error i32 (0 or -errno), unique u64, body; one message for each read and write
"""

from __future__ import annotations

import enum
import errno
import struct
from dataclasses import dataclass
from typing import Final

from parma_api.status import DataLossError

MAJOR: Final = 7
MAX_WRITE: Final = 65536
READ_SIZE: Final = MAX_WRITE + 4096
"""Of one read: room for the longest request."""
_IN: Final = struct.Struct("<IIQQIIIHH")
_OUT: Final = struct.Struct("<IiQ")


class Op(enum.IntEnum):
    """Of requests that are answered by more than an error."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    MKDIR = 9
    RMDIR = 11
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    BATCH_FORGET = 42
    CUSE_INIT = 4096


SILENT: Final = frozenset((Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.DESTROY))
"""No answer is read to these."""


class FuseError(DataLossError):
    """The kernel says what the protocol does not have."""


class RefusedError(Exception):
    """An operation ends with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, str(number)))
        self.number = number


@dataclass(frozen=True, slots=True)
class Request:
    """One message of the kernel's; `opcode` may be none of `Op`."""

    opcode: int
    unique: int
    node: int
    body: bytes

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """The numbers at the body's beginning. Raises FuseError."""
        if len(self.body) < layout.size:
            raise FuseError(f"request {self.opcode} of {len(self.body)} bytes")
        return layout.unpack_from(self.body)

    def name(self, start: int = 0) -> str:
        """The text from `start` to its NUL. Raises FuseError; RefusedError for what is no UTF-8."""
        raw, nul, _ = self.body[start:].partition(b"\0")
        if not nul:
            raise FuseError(f"request {self.opcode} with a name that does not end")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise RefusedError(errno.EINVAL) from error


def decode(data: bytes) -> Request:
    """Raises FuseError."""
    if len(data) < _IN.size:
        raise FuseError(f"a request of {len(data)} bytes")
    length, opcode, unique, node, *_ = _IN.unpack_from(data)
    if length != len(data):
        raise FuseError(f"a request says {length} bytes and has {len(data)}")
    return Request(opcode, unique, node, data[_IN.size :])


def answer(unique: int, body: bytes = b"") -> bytes:
    """A success."""
    return _OUT.pack(_OUT.size + len(body), 0, unique) + body


def refusal(unique: int, number: int) -> bytes:
    """A failure with this errno."""
    return _OUT.pack(_OUT.size, -number, unique)


_INIT_IN: Final = struct.Struct("<IIII")
_CUSE_INIT_OUT: Final = struct.Struct("<IIIIIIII40x")
_UNRESTRICTED_IOCTL: Final = 1
_OPEN_OUT: Final = struct.Struct("<QII")
DIRECT_IO: Final = 1
"""Of an open file: reads and writes come as they are made."""


def cuse_init(request: Request, name: str) -> bytes:
    """The answer that makes the device of this name appear. Raises FuseError."""
    major, minor, _, flags = request.unpack(_INIT_IN)
    if request.opcode != Op.CUSE_INIT or major != MAJOR or not flags & _UNRESTRICTED_IOCTL:
        raise FuseError(f"CUSE of version {major}.{minor}, flags {flags:#x}")
    head = _CUSE_INIT_OUT.pack(MAJOR, minor, 0, _UNRESTRICTED_IOCTL, MAX_WRITE, MAX_WRITE, 0, 0)
    return answer(request.unique, head + f"DEVNAME={name}\0".encode())


def opened(handle: int, flags: int = 0) -> bytes:
    """The body that answers OPEN and OPENDIR."""
    return _OPEN_OUT.pack(handle, flags, 0)


_IOCTL_IN: Final = struct.Struct("<QIIQII")
_IOCTL_OUT: Final = struct.Struct("<iIII")
_RANGE: Final = struct.Struct("<QQ")
_RETRY: Final = 4
COMPAT: Final = 1
"""Of an ioctl: by a program of 32 bits."""


@dataclass(frozen=True, slots=True)
class Ioctl:
    """An ioctl with what has been fetched of the caller's memory so far."""

    flags: int
    command: int
    argument: int
    out_size: int
    """Bytes that can be written to the caller."""
    data: bytes


Range = tuple[int, int]
"""Address and length in the caller's memory."""


def decode_ioctl(request: Request) -> Ioctl:
    """Raises FuseError."""
    _, flags, command, argument, in_size, out_size = request.unpack(_IOCTL_IN)
    data = request.body[_IOCTL_IN.size :]
    if len(data) != in_size:
        raise FuseError(f"an ioctl says {in_size} bytes and has {len(data)}")
    return Ioctl(flags, command, argument, out_size, data)


def ioctl_retry(reads: tuple[Range, ...], writes: tuple[Range, ...]) -> bytes:
    """The body that asks for the ioctl again, with `reads` fetched, and `writes` to be written in the end."""
    ranges = b"".join(_RANGE.pack(*one) for one in (*reads, *writes))
    return _IOCTL_OUT.pack(0, _RETRY, len(reads), len(writes)) + ranges


def ioctl_done(result: int, data: bytes) -> bytes:
    """The body that ends it: `data` goes into the ranges that were to be written, also with a negative result."""
    return _IOCTL_OUT.pack(result, 0, 0, 0) + data
