"""System calls that Python has no function for, through ctypes.

ctypes costs 0.17 s of an emulated guest's boot: it is imported with the first call, not with this module.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from parma_guest.linux.errno import KernelError

# arch/x86/entry/syscalls/syscall_64.tbl
SYS_UMOUNT2 = 166
SYS_MOUNT = 165
SYS_ADD_KEY = 248
SYS_KEYCTL = 250
SYS_UNSHARE = 272
SYS_SETNS = 308
SYS_FINIT_MODULE = 313
SYS_PIDFD_SEND_SIGNAL = 424
SYS_MOVE_MOUNT = 429
SYS_OPEN_TREE = 428
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_PIDFD_OPEN = 434
SYS_OPENAT2 = 437

AT_FDCWD = -100


@functools.cache
def _function() -> tuple[Callable[..., int], Callable[[], int]]:
    import ctypes

    function: Any = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function, ctypes.get_errno


def _argument(value: int | bytes | bytearray | None) -> object:
    import ctypes

    if isinstance(value, int):
        return ctypes.c_long(value)
    if isinstance(value, bytearray):  # by reference: the kernel reads or writes it in place
        return ctypes.byref((ctypes.c_char * len(value)).from_buffer(value))
    return value if value is None else ctypes.c_char_p(value)


def syscall(
    name: str, number: int, *arguments: int | bytes | bytearray | None, what: object = ""
) -> int:
    """The call's result. bytes are passed as NUL-terminated text, a bytearray in place. Raises KernelError."""
    function, errno = _function()
    result = function(_argument(number), *map(_argument, arguments))
    if result < 0:
        raise KernelError(name, what, errno())
    return int(result)


def encode(path: str | os.PathLike[str]) -> bytes:
    """A path for the kernel."""
    return os.fsencode(path)
